# SPDX-License-Identifier: GPL-2.0-or-later
"""Deliberate faults: a catalogue of them, and a campaign that measures which ones are caught.

A checker that nobody has seen fail is not a checker.  ``catalogue.yaml`` lists
what can be made wrong, one fault at a time, in builds of QEMU and of the
guest's module that exist for nothing else; ``freepage faults run`` runs each
against the scenario that must catch it.  docs/faults.md tells what came out.
"""
