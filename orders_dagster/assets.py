"""The `orders` asset and the external asset for the API it comes from.

Materializing it is one synchronisation (pipeline.py); this module says what Dagster shows of it.
"""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import dlt
from dagster import (
    AssetExecutionContext,
    AssetKey,
    AssetsDefinition,
    AssetSpec,
    Config,
    Failure,
    FreshnessPolicy,
    MaterializeResult,
    MetadataValue,
    TableColumn,
    TableColumnConstraints,
    TableRecord,
    TableSchema,
)
from pydantic import Field

from orders_dagster.destination import inert_pipeline
from orders_dagster.elt import DagsterDltTranslator, DltResourceTranslatorData, dlt_assets
from orders_dagster.errors import OrdersError, SettingsError, SpanRefused
from orders_dagster.pipeline import (
    Synchronisation,
    synchronise,
)
from orders_dagster.places import ORDERS
from orders_dagster.repair import Repair, repair
from orders_dagster.settings import OrdersSettings, read_settings
from orders_dagster.source import inert_source
from orders_dagster.span import Span
from orders_dagster.tables import orders_tables

ORDERS_KEY = AssetKey(ORDERS)
API_KEY = AssetKey("orders_api")
GROUP = "ecommerce"
POOL = "warehouse"
"""Runs that touch the warehouse wait for one another; the limit of one is in dagster.yaml."""

API = AssetSpec(
    API_KEY,
    group_name=GROUP,
    kinds={"api"},
    description="The orders of the shop, behind its API. Not materialized here: it stands for the source.",
)

DESCRIPTION = """
Every order of the shop once, in its latest version.

Read from the API since the last watermark and merged on the order id, so that a materialization
takes as long as there are changes. Lists inside an order are tables of their own (`orders__items`);
what cannot be merged is in `orders_rejected`, with the reason.
"""


REPLAY_JOB = "replay_orders"
READ_AGAIN = "read_again"
"""The metadata of a materialization that read a span again: it says nothing of the usual volume."""


class OrdersConfig(Config):
    """What to read other than what has changed: in the Launchpad, by `replay_orders`, `repair_orders`."""

    start: str = Field(
        default="",
        description="Read the orders modified from this time on again: 2026-03-01, or "
        "2026-03-01T06:00:00+01:00; UTC unless it says otherwise. The watermark stays where it is.",
    )
    end: str = Field(
        default="", description="The end of what is read again, itself excluded; empty for now."
    )
    repair: bool = Field(
        default=False,
        description="Compare the numbers of orders with the API, read again where they differ (or from "
        "start to end), and mark orders that the shop has deleted.",
    )


class OrdersTranslator(DagsterDltTranslator):
    """How the dlt resource appears in Dagster."""

    def get_asset_spec(self, data: DltResourceTranslatorData) -> AssetSpec:
        pipeline = data.pipeline
        assert pipeline is not None
        warehouse = pipeline.destination.destination_name
        return (
            super()
            .get_asset_spec(data)
            .replace_attributes(
                key=ORDERS_KEY,
                deps=[API_KEY],
                group_name=GROUP,
                kinds={"dlt", warehouse},
                owners=["team:data"],
                description=DESCRIPTION.strip(),
                freshness_policy=FreshnessPolicy.time_window(fail_window=timedelta(hours=24)),
                metadata={"dagster/table_name": f"{pipeline.dataset_name}.{ORDERS}"},
            )
        )


def orders_assets() -> AssetsDefinition:
    """The asset. Defining it needs no secret and no network: the decorator gets an inert source, and
    the real one is built from the settings when a run starts."""

    @dlt_assets(
        dlt_source=inert_source(),
        dlt_pipeline=inert_pipeline(),
        name=ORDERS,
        dagster_dlt_translator=OrdersTranslator(),
        pool=POOL,
    )
    def orders(context: AssetExecutionContext, config: OrdersConfig) -> Any:
        try:
            metadata = materialize(read_settings(), config, context.run.job_name, context.log.info)
        except OrdersError as error:
            # A wrong setting stays wrong: no retry. Failure shows the message without a stack.
            is_final = isinstance(error, (SettingsError, SpanRefused))
            raise Failure(str(error), allow_retries=not is_final) from None
        yield MaterializeResult(asset_key=ORDERS_KEY, metadata=metadata)

    # dagster_dlt keeps its objects in the metadata for its own resource, which is not used here; the
    # page would show them as "unserializable".
    return orders.map_asset_specs(
        lambda spec: spec.replace_attributes(
            metadata={k: v for k, v in spec.metadata.items() if not k.startswith("dagster_dlt/")}
        )
    )


def materialize(
    settings: OrdersSettings, config: OrdersConfig, job: str, log: Callable[[str], None]
) -> dict[str, Any]:
    """Read what has changed, a span again, or what differs; what it reports.

    Raises:
        SpanRefused: before anything is read.
        OrdersError: as a synchronisation.
    """
    if job == REPLAY_JOB and not config.start.strip():
        raise SpanRefused("choose a month, or write its start into the Launchpad")
    if config.end.strip() and not config.start.strip():
        raise SpanRefused("it has an end and no start")
    now = datetime.now(UTC)
    span = Span.parse(config.start, config.end, now) if config.start.strip() else None
    if config.repair:
        repaired = repair(settings, log, span=span)
        return materialization_metadata(repaired.total) | repair_metadata(repaired)
    metadata = materialization_metadata(synchronise(settings, log, span=span))
    return metadata | ({READ_AGAIN: str(span)} if span else {})


def repair_metadata(repaired: Repair) -> dict[str, Any]:
    """What was compared, read again and marked."""
    compared: dict[str, Any] = {}
    if repaired.not_compared is not None:
        compared["not_compared"] = repaired.not_compared
    elif repaired.differences is not None:
        compared["differences"] = MetadataValue.table(
            [
                TableRecord(
                    {
                        "from": one.span.start.isoformat(),
                        "to": one.span.end.isoformat(),
                        "in_api": one.in_api,
                        "in_warehouse": one.in_warehouse,
                    }
                )
                for one in repaired.differences
            ],
            TableSchema(
                [
                    TableColumn("from"),
                    TableColumn("to"),
                    TableColumn("in_api", "int"),
                    TableColumn("in_warehouse", "int"),
                ]
            ),
        )
    return {
        READ_AGAIN: "; ".join(map(str, repaired.spans)) or "nothing",
        "marked_deleted": repaired.marked,
        **compared,
    }


def materialization_metadata(result: Synchronisation) -> dict[str, Any]:
    """What a materialization reports. Numbers are numbers, so that the page plots them."""
    tables = orders_tables(result.schema)
    return {
        "orders_loaded": result.loaded,
        "orders_new": result.new,
        "orders_updated": result.updated,
        "orders_unchanged": result.unchanged,
        "orders_rejected": result.rejected,
        "rows_in_table": result.rows_in_table,
        "watermark_before": _time(result.watermark_before),
        "watermark_after": _time(result.watermark_after),
        "lag_seconds": MetadataValue.null()
        if result.lag_seconds is None
        else round(result.lag_seconds, 3),
        "pages": result.pages,
        "requests": result.requests,
        "retries": result.retries,
        "bytes": result.bytes,
        "extract_seconds": round(result.extract_seconds, 3),
        "normalize_seconds": round(result.normalize_seconds, 3),
        "load_seconds": round(result.load_seconds, 3),
        "warehouse": result.warehouse,
        "dagster/row_count": result.rows_in_table,
        "dagster/column_schema": table_schema(result.schema, ORDERS),
        **{f"{table}_columns": table_schema(result.schema, table) for table in tables[1:]},
    }


def table_schema(schema: dlt.Schema | None, table: str) -> TableSchema:
    """The columns of a table as dlt knows them; none before the first load."""
    columns = schema.get_table_columns(table) if schema and table in schema.tables else {}
    return TableSchema(
        columns=[
            TableColumn(
                name,
                str(column["data_type"]),
                constraints=TableColumnConstraints(
                    nullable=bool(column.get("nullable", True)),
                    unique=bool(column.get("unique")),
                    other=["primary key"] if column.get("primary_key") else [],
                ),
            )
            for name, column in columns.items()
        ]
    )


def _time(time: datetime | None) -> MetadataValue:
    return MetadataValue.null() if time is None else MetadataValue.timestamp(time)
