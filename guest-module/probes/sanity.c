// SPDX-License-Identifier: GPL-2.0
/* Must always build: if this fails, no other answer means anything. */
#include <linux/module.h>
#include <linux/virtio.h>
#include <linux/virtio_config.h>
