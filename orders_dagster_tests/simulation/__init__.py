"""A seeded shop that changes while it is read, a wire that fails, and a process that is killed.

    python -m orders_dagster_tests.simulation --help

One seed is one story: a history of orders, a server with its oddities, settings, and a few runs of
`synchronise`, each in a process of its own, with changes between any two requests, faults, and mostly
a SIGKILL at some point. Then the shop becomes quiet, one more run has to succeed, and every order and
item in the warehouse is compared with the shop. In some stories orders are then deleted in the shop
and rows in the warehouse, and repaired.

    __main__.py   the command line: many seeds on all cores, or one seed told in full
    scenario.py   what a seed decides
    goods.py      orders: made up and changed
    shop.py       the shop over real HTTP: when it changes, what goes wrong on the wire
    zygote.py     the process that has imported everything, and forks one child for each run
    runs.py       starting a run from here, killing it, and how it ended
    mend.py       after the last run: what is deleted or harmed, and the repair
    mishap.py     what befalls a warehouse behind the project's back
    compare.py    the warehouse against the shop, field by field
    play.py       one seed, from its first order to the verdict
    pool.py       many seeds on several cores

The sandbox serves the pages; the truth is kept here, so that it is not the server that says what the
tables have to be. With one worker a seed is the same story each time, but for dates, which are
relative to now, and kills after a delay; with several, requests overtake each other.
"""
