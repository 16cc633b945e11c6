// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Sockets between guest and host: the guest listens, and sends back what it gets, reversed.
 *
 *   vsock begin PORT    a process listens from now on
 *   vsock check CID     the guest's context id must be this one
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <linux/vm_sockets.h>

#include "device.h"

#define WORD	16

static void serve(struct shared *shared, void *argument)
{
	int listener = *(int *)argument;

	for (;;) {
		int fd = accept(listener, NULL, NULL);
		unsigned char word[WORD], back[WORD];
		size_t got = 0, i;

		if (fd < 0) {
			if (errno != EINTR && errno != ECONNABORTED && errno != ECONNRESET)
				shared->failed = errno;
			breathe();
			continue;
		}
		while (got < WORD) {
			ssize_t n = read(fd, word + got, WORD - got);

			if (n <= 0)
				break;
			got += n;
		}
		for (i = 0; i < WORD; i++)
			back[i] = word[WORD - 1 - i];
		if (got == WORD && write(fd, back, WORD) == WORD)
			shared->count++;
		close(fd);
	}
}

static void run_vsock(int argc, char **argv)
{
	struct sockaddr_vm here = { .svm_family = AF_VSOCK, .svm_cid = VMADDR_CID_ANY };
	struct shared *shared = shared_of("vsock");
	unsigned int cid = 0;
	int fd;

	if (argc != 2)
		unable("expected: vsock begin PORT, or vsock check CID");
	if (!strcmp(argv[0], "begin")) {
		here.svm_port = number_word(argv[1]);
		fd = socket(AF_VSOCK, SOCK_STREAM, 0);
		if (fd < 0 || bind(fd, (struct sockaddr *)&here, sizeof(here)) || listen(fd, 4))
			wrong("listening: %s", strerror(errno));
		in_background("vsock", serve, &fd);
		did("a process listens");
		return;
	}
	if (!shared || shared->failed)
		wrong("nobody listens any more: %s", strerror(shared ? shared->failed : ESRCH));
	fd = open("/dev/vsock", O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		unable("/dev/vsock: %s", strerror(errno));
	/* The new one comes with an event of the device's, after the guest has arrived. */
	while (!ioctl(fd, IOCTL_VM_SOCKETS_GET_LOCAL_CID, &cid) && cid != number_word(argv[1]))
		breathe();
	close(fd);
	did("its context id is %u, and a process listens", cid);
}

DEVICE(vsock, run_vsock);
