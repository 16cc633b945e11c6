#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
#
# Called by mmdebstrap with the new root's folder when all packages are in it; see cloud_image.py.
#
#   FREEPAGE_OUT    where the root's file system and the loader's two parts go
#   FREEPAGE_BYTES  the size of the file system

set -eu
root=$1

echo 'LABEL=cloudroot / ext4 defaults 0 1' >"$root/etc/fstab"
echo localhost >"$root/etc/hostname"
mkdir -p "$root/boot/grub"
cat >"$root/boot/grub/grub.cfg" <<'CONFIG'
linux /vmlinuz root=LABEL=cloudroot ro console=tty0 console=ttyS0,115200
initrd /initrd.img
boot
CONFIG
chroot "$root" grub-mkimage -O i386-pc -o /boot/core.img -p '(hd0,msdos1)/boot/grub' \
    biosdisk part_msdos ext2 normal configfile linux
cp "$root/usr/lib/grub/i386-pc/boot.img" "$root/boot/core.img" "$FREEPAGE_OUT/"
rm -f "$root"/etc/ssh/ssh_host_* "$root/var/lib/dbus/machine-id"
: >"$root/etc/machine-id"
rm -rf "$root"/var/cache/apt/* "$root"/var/lib/apt/lists/* "$root"/usr/share/doc/* "$root"/usr/share/man/*
# /proc, /sys and /dev are mounted while packages are configured.
bare=$FREEPAGE_OUT/bare
mkdir "$bare"
mount --bind "$root" "$bare"
trap 'umount "$bare" && rmdir "$bare"' EXIT
truncate -s "$FREEPAGE_BYTES" "$FREEPAGE_OUT/root.img"
mke2fs -q -F -t ext4 -L cloudroot -d "$bare" "$FREEPAGE_OUT/root.img"
