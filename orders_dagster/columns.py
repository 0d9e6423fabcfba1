"""What dlt calls the columns of an order, and one decimal column for a number that is `10` here and
`10.5` there.

Left alone, dlt gives a column the type of the first value it sees, and splits the others off into a
variant column (`total` and `total__v_decimal`), over which every sum is wrong.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import dlt
from dlt.common.destination import DestinationCapabilitiesContext
from dlt.common.normalizers.naming import NamingConvention

from orders_dagster.places import ORDERS, Naming, path_of
from orders_dagster.values import Column

WIDENING = ("duckdb", "motherduck", "postgres")
"""Destinations that can turn a column of whole numbers into decimals in place. On the others, a
column that exists already gets a variant column beside it: nothing is lost, but sums need both."""


LONGEST_TABLE = 220
"""A table's name is a part of that of its files, which is 255 bytes at most."""


def naming_for(capabilities: DestinationCapabilitiesContext | None = None) -> Naming:
    """dlt's naming convention, with names as long as the destination takes them, and files those of
    tables."""
    convention = type(dlt.Schema(ORDERS).naming)
    longest = [
        length
        for length in (
            capabilities and capabilities.max_identifier_length,
            capabilities and capabilities.max_column_identifier_length,
        )
        if length
    ]
    naming = convention(min(longest)) if longest else convention()
    of_tables = convention(min([*longest, LONGEST_TABLE]))

    def joining(naming: NamingConvention) -> Callable[..., str]:
        def join(*names: str) -> str:
            # Shortened, a name is another one to dlt if the hash in it begins with a digit.
            name, joined = "", str(naming.shorten_fragments(*names))
            while joined != name:
                name, joined = joined, str(naming.normalize_path(joined))
            return name

        return cache(join)

    return Naming(
        identifier=cache(lambda name: str(naming.normalize_identifier(name))),
        join=joining(naming),
        table=joining(of_tables),
    )


@cache
def default_naming() -> Naming:
    """The names that a destination without a limit gets; dlt reads its configuration for them."""
    return naming_for()


@cache
def column_name(setting: str) -> str:
    """The column of a field from a setting, `meta.updated_at`."""
    return default_naming().place(path_of(setting))[1]


def column_type(schema: dlt.Schema | None, column: Column) -> str | None:
    """dlt's type of a column, None if there is no such column yet."""
    table, name = column
    columns = schema.tables.get(table, {}).get("columns", {}) if schema else {}
    return columns.get(name, {}).get("data_type")


def parents(schema: dlt.Schema | None) -> dict[str, str | None]:
    """The parent of each table, None for one without."""
    tables = schema.tables if schema else {}
    return {name: table.get("parent") or None for name, table in tables.items()}
