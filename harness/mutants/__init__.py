# SPDX-License-Identifier: GPL-2.0-or-later
"""Mutation testing: one line of QEMU is changed at a time, and the scenarios have to notice.

==============  ===========================================================
``ctext``       C text: what is code in it, and where functions are
``operators``   how one line can be wrong
``draw``        which of all mutants are taken, by a seed
``named``       the functions that are mutated, and mutants that change nothing
``build``       one object and one link for each mutant, in a tree of its own
``store``       what came of each run; a second command goes on from there
``order``       the scenarios that have caught most come first
``judged``      what the runs of one mutant make of it
``search``      one mutant against scenarios until the first catch
``command``     ``freepage faults mutate``
==============  ===========================================================
"""
