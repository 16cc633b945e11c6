// SPDX-License-Identifier: GPL-2.0
/* Feature words beyond 64 bits: get_features() may be NULL, this helper is not. */
#include <linux/virtio.h>
#include <linux/virtio_config.h>

u64 probe(struct virtio_device *vdev);
u64 probe(struct virtio_device *vdev)
{
	u64 features[8];

	virtio_get_features(vdev, features);
	return features[0];
}
