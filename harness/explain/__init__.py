# SPDX-License-Identifier: GPL-2.0-or-later
"""Why a page may differ, or may not: what a run keeps of each, and what ``freepage explain`` says."""
