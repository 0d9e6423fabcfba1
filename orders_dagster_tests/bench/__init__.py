"""The benchmark of `make bench`: what a synchronisation costs, beside two others in the same run.

    python -m orders_dagster_tests.bench --help

The contenders are processes of their own, started alike, one after the other, against the same
sandbox process, in turns (A B C A B C), so that a slow minute hits all of them:

    ours.py    this project, as `synchronise(read_settings())`
    bare.py    a bare `rest_api_source` with the reference configuration, and dlt's defaults
    floor.py   a `requests` loop that writes the bodies to files, and DuckDB's `read_json` over them:
               it checks nothing, and shows what the machine and the sandbox leave to be gained

Each says how long its own work took, from after its imports to the end: token, planning, reading,
warehouse. The whole process, with the interpreter and the imports, and its peak memory are measured
from outside. None of this is a test: no time is asserted anywhere.

    __main__.py   the command line
    cases.py      what is measured, and how often
    shops.py      the sandboxes
    places.py     where one contender keeps its files
    measure.py    one process, timed from outside
    sums.py       whether a warehouse equals the shop
    report.py     the tables, and what is to be reached

The process that measures stays small, and leaves databases to `sums.py` in processes of its own:
on Linux a process that has been started is charged with the memory of the one that started it.
"""
