# SPDX-License-Identifier: GPL-2.0-or-later
"""Results of many nights: kept in a database, asked, and shown as pages.

A *batch* is what one command has made: a suite, a campaign of faults, a bench, a hunt.  Suites, campaigns and
benches write theirs while they run; ``freepage history import`` reads what lies in folders::

    with open_store(store_url(None)) as store:
        record_batch(store, batch)
        for one in state_of(store, Selection()):
            print(one.scenario, one.failing_since)

docs/history.md is for users.
"""
