/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Loaded into a QEMU before its libraries: whoever asks KVM for a dirty ring is given
 * manual protection that is initially set as well.
 *
 * With the latter KVM protects no page when logging begins, as all count as dirty then; but
 * a ring has no bitmap in which they could be set, so what is written to a page that was
 * writable is never logged.  QEMU has had both on (before "KVM: Disable manual dirty log
 * when dirty ring enabled", in 6.1).
 */
#include <dlfcn.h>
#include <stdarg.h>
#include <string.h>
#include <unistd.h>
#include <linux/kvm.h>

#ifndef KVM_CAP_DIRTY_LOG_RING_ACQ_REL
#define KVM_CAP_DIRTY_LOG_RING_ACQ_REL 223
#endif

typedef int ioctl_fn(int fd, unsigned long request, ...);

int ioctl(int fd, unsigned long request, ...)
{
	static const char said[] = "test: the dirty ring has manual protection, initially set\n";
	static ioctl_fn *next;
	const struct kvm_enable_cap *wanted;
	va_list args;
	void *arg;
	int result;

	va_start(args, request);
	arg = va_arg(args, void *);
	va_end(args);
	if (!next) {
		void *found = dlsym(RTLD_NEXT, "ioctl");

		memcpy(&next, &found, sizeof(next));
	}
	result = next(fd, request, arg);
	wanted = arg;
	if (request == KVM_ENABLE_CAP && !result && (wanted->cap == KVM_CAP_DIRTY_LOG_RING ||
						     wanted->cap == KVM_CAP_DIRTY_LOG_RING_ACQ_REL)) {
		struct kvm_enable_cap both = {
			.cap = KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2,
			.args = { KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE | KVM_DIRTY_LOG_INITIALLY_SET },
		};

		if (!next(fd, KVM_ENABLE_CAP, &both) && write(STDERR_FILENO, said, sizeof(said) - 1) < 0)
			return -1;
	}
	return result;
}
