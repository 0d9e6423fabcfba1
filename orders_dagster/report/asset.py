"""The asset `orders_check_report`: the report as it is after a run, in the Dagster page and as a file.

It is to be rendered above all when something is wrong. Dagster skips what is downstream of a step that
failed, and of a blocking check that failed; so the asset has no upstream. It is the last step of its run
by its priority, which the in-process executor of this project goes by: a step of higher priority that can
run does so first, and what cannot run any more is skipped.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dagster import (
    AssetCheckSpec,
    AssetExecutionContext,
    AssetKey,
    AssetsDefinition,
    DagsterInstance,
    MaterializeResult,
    MetadataValue,
    asset,
)

from orders_dagster.assets import GROUP
from orders_dagster.report.content import FAIL, WARN, make_report
from orders_dagster.report.formats import html, summary

REPORT_KEY = AssetKey("orders_check_report")
FILE = "orders_check_report.html"
DESCRIPTION = f"""
How the orders are: every check with its verdict and its history, the loads, what was rejected.

Rendered at the end of each run of `orders_job`, also of one that failed, which is why it has no upstream.
The page is `{FILE}` in `DAGSTER_HOME`; `orders-dagster report` renders the same at any time.
"""


def orders_check_report(specs: Sequence[AssetCheckSpec]) -> AssetsDefinition:
    """The asset, for these checks."""

    @asset(
        key=REPORT_KEY,
        group_name=GROUP,
        kinds={"html"},
        owners=["team:data"],
        description=DESCRIPTION.strip(),
        op_tags={"dagster/priority": "-100"},
    )
    def orders_check_report(context: AssetExecutionContext) -> MaterializeResult[None]:
        return MaterializeResult(metadata=render(context.instance, specs))

    return orders_check_report


def render(instance: DagsterInstance, specs: Sequence[AssetCheckSpec]) -> dict[str, Any]:
    """Write the page; what its materialization shows."""
    report = make_report(instance, specs)
    path = write_page(instance, html(report))
    verdicts = [check.verdict for check in report.checks]
    return {
        "report": MetadataValue.md(summary(report)),
        "page": MetadataValue.path(path),
        "checks": len(verdicts),
        "failing": verdicts.count(FAIL),
        "warning": verdicts.count(WARN),
    }


def write_page(instance: DagsterInstance, text: str) -> Path:
    """Put the page beside Dagster's records. Whoever has it open sees the old one or the new one."""
    path = Path(instance.root_directory) / FILE
    written = path.with_suffix(".part")
    written.write_text(text, encoding="utf-8")
    written.replace(path)
    return path
