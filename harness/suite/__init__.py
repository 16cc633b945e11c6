# SPDX-License-Identifier: GPL-2.0-or-later
"""Many runs as one: a matrix of scenarios and what is chosen for them, built first, then scheduled.

==============  ===========================================================
``model``       what a suite's file may say
``load``        the suites that ship, and files; every problem with its line
``matrix``      each scenario in each combination that is asked for
``expand``      from the matrix to single runs
``needs``       what a run takes of the machine, and what the machine has
``schedule``    which run is next
``build``       what the runs need is built, once, before the first of them
``runner``      each run as a command of its own
``folder``      the suite's folder, and the last one of the same suite
``command``     ``freepage suite run``, and ``freepage run A B``
==============  ===========================================================
"""
