// SPDX-License-Identifier: GPL-2.0
/* Does the virtio bus pass a shutdown on to its drivers? */
#include <linux/virtio.h>

void probe(struct virtio_driver *driver, void (*shutdown)(struct virtio_device *));
void probe(struct virtio_driver *driver, void (*shutdown)(struct virtio_device *))
{
	driver->shutdown = shutdown;
}
