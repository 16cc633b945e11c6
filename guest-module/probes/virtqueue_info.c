// SPDX-License-Identifier: GPL-2.0
/* Does virtio_find_vqs() take a structure a queue, or parallel arrays? */
#include <linux/virtio.h>
#include <linux/virtio_config.h>

int probe(struct virtio_device *vdev, struct virtqueue **vq);
int probe(struct virtio_device *vdev, struct virtqueue **vq)
{
	struct virtqueue_info info[] = { { .name = "probe" } };

	return virtio_find_vqs(vdev, 1, vq, info, NULL);
}
