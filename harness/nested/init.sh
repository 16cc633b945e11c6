#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
#
# The first program of a nested machine: loads modules, makes the host's root
# the machine's own (what is written to it goes to memory), and hands over.

fail() {
	echo "nested machine: $*" >&2
	exit 1 # the end of init is the kernel's panic, and the machine's end
}

mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev

# Of kvm_amd and kvm_intel one fails, as it should.
while read -r module; do
	insmod "/modules/$module.ko" 2>/said && continue
	case $module in
	kvm_amd | kvm_intel) ;;
	*) echo "nested machine: $module: $(cat /said)" >&2 ;;
	esac
done </modules/order

# "loose": the host's files are taken not to change while the machine runs.
mount -t 9p -o ro,cache=loose,version=9p2000.L,trans=virtio,msize=524288,access=any root /lower ||
	fail "cannot mount the host's root"
mount -t tmpfs -o mode=0755,size=50% upper /upper || fail "cannot mount a tmpfs"
mkdir /upper/root /upper/work
mount -t overlay -o lowerdir=/lower,upperdir=/upper/root,workdir=/upper/work,xino=off,index=off root /newroot ||
	fail "cannot mount an overlay"

# The same machine on every host: nothing of the host's services, which take longer than a run.
rm -rf /newroot/etc/systemd
rm -f /newroot/usr/lib/systemd/systemd-udevd /newroot/lib/systemd/systemd-udevd

init=
for word in $(cat /proc/cmdline); do
	case $word in init=*) init=${word#init=} ;; esac
done
[ -n "$init" ] || fail "nobody said which program is to go on"
umount /proc /sys /dev
exec switch_root /newroot "$init"
