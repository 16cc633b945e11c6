# SPDX-License-Identifier: GPL-2.0-or-later
"""Where guests run: the namespaces of a run, and the two hosts inside them.

:mod:`harness.hosts.enter` puts the command into namespaces of its own;
:mod:`harness.hosts.lab` makes the two hosts in there.
"""
