# SPDX-License-Identifier: GPL-2.0-or-later
"""``freepage hunt``: scenarios drawn at random, run and judged; what fails is made small and kept.

Pure: :mod:`language` (what can be drawn), :mod:`episodes` (pieces of scripts), :mod:`drawing` (Hypothesis),
:mod:`coverage` (which keys have met), :mod:`ending` (what a run's end means).  At the edge: :mod:`folder`
(what a hunt leaves), :mod:`running` (one run), :mod:`hunter` (the hunt), :mod:`conduct` (the command).
"""
