# SPDX-License-Identifier: GPL-2.0-or-later
"""Runs on many machines: orders go out through Dask, run folders come back.

order.py      what a worker is asked for, and what it answers
artefacts.py  a run folder as bytes, bounded
work.py       what happens on a worker
security.py   certificates, and who may be talked to without any
serve.py      the processes: a scheduler, a worker
client.py     the side that asks: connect, compare versions, hand out builds
runner.py     the runs of a suite on a cluster

Dask hands functions and their arguments over as pickles: who can talk to a scheduler can run programs on
all its workers.  So nothing here listens beyond this machine, or connects beyond it, without certificates.
"""
