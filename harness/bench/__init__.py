# SPDX-License-Identifier: GPL-2.0-or-later
"""Arms side by side: which runs in which order, what each is measured by, and what may be concluded.

    plan = make_plan(points, repeat=5, seed=1)      # plan.py: pure
    run_all(plan, ...)                              # runner.py: one ``freepage run`` each
    document = summarise(...)                       # summarise.py: pure again
    to_html(document), to_markdown(document)        # page.py, markdown.py

A run that is not a pass is listed with its verdict, and enters no number.
docs/bench.md argues the design and the statistics.
"""

from __future__ import annotations
