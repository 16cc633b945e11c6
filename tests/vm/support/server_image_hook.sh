#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
#
# Called by mmdebstrap before cloud_image_hook.sh, for a disk that is entered by ssh; see cloud_image.py.
#
#   FREEPAGE_OUT    where the files go that let somebody in: key, password, host_keys

set -eu
root=$1
out=$FREEPAGE_OUT

ssh-keygen -q -t ed25519 -N '' -f "$out/key"
ssh-keygen -q -t ed25519 -N '' -C server -f "$root/etc/ssh/own_host_key"
cp "$root/etc/ssh/own_host_key.pub" "$out/host_keys"
cat >"$root/etc/ssh/sshd_config.d/own.conf" <<'CONFIG'
HostKey /etc/ssh/own_host_key
PermitRootLogin prohibit-password
PasswordAuthentication yes
CONFIG
printf 'correct horse\n' >"$out/password"
for user in tester careful; do
    chroot "$root" useradd --create-home --shell /bin/sh "$user"
    printf '%s:%s\n' "$user" "$(cat "$out/password")" | chroot "$root" chpasswd
done
echo 'tester ALL=(ALL) NOPASSWD: ALL' >"$root/etc/sudoers.d/tester"
echo 'careful ALL=(ALL) ALL' >"$root/etc/sudoers.d/careful"
for home in root home/tester home/careful; do
    mkdir -p -m 0700 "$root/$home/.ssh"
    cp "$out/key.pub" "$root/$home/.ssh/authorized_keys"
    chroot "$root" chown -R "${home##*/}:" "/$home/.ssh"
done
# As a machine does that is new in a network.
cat >"$root/etc/systemd/network/wired.network" <<'CONFIG'
[Match]
Type=ether
[Network]
DHCP=ipv4
CONFIG
chroot "$root" systemctl --quiet enable systemd-networkd ssh
