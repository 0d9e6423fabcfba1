"""The `orders` asset and the external asset for the API it comes from.

Materializing it is one synchronisation (pipeline.py); this module says what Dagster shows of it.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any

import dlt
from dagster import (
    AssetExecutionContext,
    AssetKey,
    AssetsDefinition,
    AssetSpec,
    Failure,
    FreshnessPolicy,
    MaterializeResult,
    MetadataValue,
    TableColumn,
    TableColumnConstraints,
    TableSchema,
)

from orders_dagster.destination import inert_pipeline
from orders_dagster.elt import DagsterDltTranslator, DltResourceTranslatorData, dlt_assets
from orders_dagster.errors import OrdersError, SettingsError, SpanRefused
from orders_dagster.pipeline import (
    Synchronisation,
    synchronise,
)
from orders_dagster.places import ORDERS
from orders_dagster.settings import read_settings
from orders_dagster.source import inert_source
from orders_dagster.tables import orders_tables
from orders_dagster.warehouse import kind_of

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


READ_AGAIN = "read_again"
"""The metadata of a materialization that read a span again: it says nothing of the usual volume."""
BLOCKED = "blocking_checks"
"""The metadata of the failure of a step that failed because blocking checks do."""
REFUSED = "range_refused"
"""The same of a step that was asked for a span of time that cannot be meant."""


class OrdersTranslator(DagsterDltTranslator):
    """How the dlt resource appears in Dagster.

    Args:
        fresh_for: after how long without a materialization the page says that the asset is not fresh.
    """

    def __init__(self, fresh_for: timedelta) -> None:
        self._fresh_for = fresh_for

    def get_asset_spec(self, data: DltResourceTranslatorData) -> AssetSpec:
        pipeline = data.pipeline
        assert pipeline is not None
        return (
            super()
            .get_asset_spec(data)
            .replace_attributes(
                key=ORDERS_KEY,
                deps=[API_KEY],
                group_name=GROUP,
                kinds={"dlt", kind_of(pipeline)},
                owners=["team:data"],
                description=DESCRIPTION.strip(),
                freshness_policy=FreshnessPolicy.time_window(fail_window=self._fresh_for),
                metadata={"dagster/table_name": f"{pipeline.dataset_name}.{ORDERS}"},
            )
        )


def orders_assets(fresh_for: timedelta = timedelta(days=1)) -> AssetsDefinition:
    """The asset. Defining it needs no secret and no network: the decorator gets an inert source, and
    the real one is built from the settings when a run starts."""

    @dlt_assets(
        dlt_source=inert_source(),
        dlt_pipeline=inert_pipeline(),
        name=ORDERS,
        dagster_dlt_translator=OrdersTranslator(fresh_for),
        pool=POOL,
    )
    def orders(context: AssetExecutionContext) -> Any:
        with failing_in_words():
            result = synchronise(read_settings(), context.log.info)
        yield MaterializeResult(asset_key=ORDERS_KEY, metadata=materialization_metadata(result))

    # dagster_dlt keeps its objects in the metadata for its own resource, which is not used here; the
    # page would show them as "unserializable".
    return orders.map_asset_specs(
        lambda spec: spec.replace_attributes(
            metadata={k: v for k, v in spec.metadata.items() if not k.startswith("dagster_dlt/")}
        )
    )


@contextmanager
def failing_in_words() -> Iterator[None]:
    """Our errors become Dagster's failures, which show the message without a stack."""
    try:
        yield
    except OrdersError as error:
        # A wrong setting stays wrong: no retry.
        is_final = isinstance(error, (SettingsError, SpanRefused))
        metadata = {REFUSED: True} if isinstance(error, SpanRefused) else None
        raise Failure(str(error), metadata=metadata, allow_retries=not is_final) from None


def materialization_metadata(result: Synchronisation) -> dict[str, Any]:
    """What a materialization reports. Numbers are numbers, so that the page plots them."""
    tables = orders_tables(result.schema)
    gone = {READ_AGAIN: f"everything: {', '.join(result.was_gone)} was gone"}
    return (gone if result.was_gone else {}) | {
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
