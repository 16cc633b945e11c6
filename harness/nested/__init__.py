# SPDX-License-Identifier: GPL-2.0-or-later
"""A machine around the testbed: real KVM on a host that has none.

TCG emulates AMD's SVM with nested paging, so Linux in an emulated machine has a
real ``/dev/kvm``.  The machine is made from this host's own root; commands run
in it as they run here, and leave their run folders here::

    with NestedMachine(parts, spec, events) as machine:
        status = machine.run(["run", "freed", "--accel", "kvm"])

=========== ==================================================================
parts       what the machine is made of: QEMU, kernel, first file system
machine     the machine: boots, runs commands, and is gone with its owner
wire        the messages between the owner and the program inside
keyboard    the input of a command inside, which may be a terminal
commands    runs scenarios inside, and leaves their run folders outside
shell       a guest inside, and a shell in the guest
bench       a whole bench inside
=========== ==================================================================

The program inside is :mod:`harness.cli.inside`.
"""
