// SPDX-License-Identifier: GPL-2.0
/* Does the virtio bus pass a shutdown on to its drivers? */
#include <linux/virtio.h>

bool probe(struct virtio_driver *driver);
bool probe(struct virtio_driver *driver)
{
	return driver->shutdown;
}
