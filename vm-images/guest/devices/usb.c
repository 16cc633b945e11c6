// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * What hangs on a USB controller.
 *
 *   usb ask ADDRESS VENDOR COUNT    that many devices of a vendor give their descriptors
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/usbdevice_fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "device.h"
#include "words.h"

#define USB_DEVICES	"/sys/bus/usb/devices"
#define DESCRIPTOR	18

static unsigned int number_file(const char *device, const char *name, int base)
{
	char path[PATH_MAX], text[32];

	snprintf(path, sizeof(path), USB_DEVICES "/%s/%s", device, name);
	read_file(path, text, sizeof(text));
	return strtoul(text, NULL, base);
}

/* Ask one device for its descriptor, by a control transfer. */
static void ask(const char *device)
{
	unsigned char bytes[DESCRIPTOR];
	struct usbdevfs_ctrltransfer transfer = {
		.bRequestType = 0x80, .bRequest = 6, .wValue = 0x100,
		.wLength = sizeof(bytes), .timeout = PATIENCE * 1000, .data = bytes,
	};
	char path[64];
	int fd;

	snprintf(path, sizeof(path), "/dev/bus/usb/%03u/%03u", number_file(device, "busnum", 10),
		 number_file(device, "devnum", 10));
	fd = open(path, O_RDWR | O_CLOEXEC);
	if (fd < 0)
		unable("%s: %s", path, strerror(errno));
	if (ioctl(fd, USBDEVFS_CONTROL, &transfer) != sizeof(bytes))
		wrong("the USB device %s gives no descriptor: %s", device, strerror(errno));
	if (bytes[0] != DESCRIPTOR || bytes[1] != 1)
		wrong("the USB device %s gives a descriptor that is none", device);
	close(fd);
}

/* How many there are below the controller; each is asked if `all` are to be. */
static unsigned int look(const char *controller, unsigned int vendor, int all)
{
	DIR *dir = opendir(USB_DEVICES);
	struct dirent *entry;
	unsigned int found = 0;

	while (dir && (entry = readdir(dir))) {
		char link[PATH_MAX], real[PATH_MAX];

		snprintf(link, sizeof(link), USB_DEVICES "/%s", entry->d_name);
		if (strchr(entry->d_name, ':') || !realpath(link, real) || !strstr(real, controller))
			continue;
		if (number_file(entry->d_name, "idVendor", 16) != vendor)
			continue;
		found++;
		if (all)
			ask(entry->d_name);
	}
	if (dir)
		closedir(dir);
	return found;
}

static void run_usb(int argc, char **argv)
{
	unsigned int vendor, count;
	char controller[64];

	if (argc != 4)
		unable("expected: usb ask ADDRESS VENDOR COUNT");
	snprintf(controller, sizeof(controller), "/0000:%s/", argv[1]);
	vendor = number_word(argv[2]);
	count = number_word(argv[3]);
	while (look(controller, vendor, 0) < count)
		breathe();
	if (look(controller, vendor, 1) != count)
		wrong("there are %u USB devices", look(controller, vendor, 0));
	did("%u USB devices gave their descriptors", count);
}

DEVICE(usb, run_usb);
