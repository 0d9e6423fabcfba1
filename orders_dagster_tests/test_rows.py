"""What becomes of an order: a row without loss, or a rejection with its reason; and where dlt puts it."""

from __future__ import annotations

import copy
import itertools
import json
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import MAX_EMAX, MIN_EMIN, Context, Decimal
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import dlt
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from dlt.common.schema.typing import TColumnSchema
from dlt.common.schema.utils import new_table
from hypothesis import given, settings
from hypothesis import strategies as st

from orders_dagster.arrays import array_at_once
from orders_dagster.columns import column_name, column_type, default_naming
from orders_dagster.load_files import LoadFiles, declare
from orders_dagster.places import LIST, ORDERS, Table
from orders_dagster.rejected import Rejected
from orders_dagster.rows import Batch, Rows
from orders_dagster.values import Column, Values, as_timestamp, fits_decimal

AT = "2024-01-02T03:04:05Z"
T = datetime(2024, 1, 2, 3, 4, 5, tzinfo=UTC)
HOUR = timedelta(hours=1)


def order(order_id: Any = "A-1", **fields: Any) -> dict[str, Any]:
    return {"order_id": order_id, "last_modified_date": AT} | fields


def rows(**known: Any) -> Rows:
    return Rows("order_id", "last_modified_date", **known)


def with_columns(**types: str) -> Rows:
    """Rows for tables that have columns already; `items__price` is a field of a list."""
    columns = {}
    for name, kind in types.items():
        *of_list, column = name.split("__")
        columns["__".join([ORDERS, *of_list]), column] = kind
    return rows(values=Values(columns.get))


@dataclass(frozen=True)
class OrderRows:
    """What one order became, row by row; nulls are left out."""

    batches: list[Batch]

    @property
    def row(self) -> dict[str, Any]:
        (row,) = self.of(ORDERS)
        return row

    @property
    def children(self) -> list[tuple[str, dict[str, Any]]]:
        names = dict.fromkeys(batch.table.name for batch in self.batches)
        return [(name, row) for name in names if name != ORDERS for row in self.of(name)]

    def of(self, table: str) -> list[dict[str, Any]]:
        """Its rows in one table."""
        return [
            {name: value for name, value in row.items() if value is not None}
            for batch in self.batches
            if batch.table.name == table
            for row in pa.table(batch.columns).to_pylist()
        ]


def rows_of(order: Any, under: Rows | None = None) -> OrderRows:
    made = (under or rows()).of([order])
    assert not made.rejected, made
    return OrderRows(made.batches)


def row_of(order: Any, under: Rows | None = None) -> dict[str, Any]:
    """The row of `orders`, without what dlt links it by."""
    return fields_of(rows_of(order, under).row)


def elements_of(made: OrderRows, table: str) -> list[dict[str, Any]]:
    """The rows of a list, without what dlt links them by."""
    return [fields_of(row) for row in made.of(table)]


def fields_of(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if not name.startswith("_dlt_")}


def rejection_of(order: Any, under: Rows | None = None) -> Rejected:
    made = (under or rows()).of([order])
    assert not made.batches
    (rejected,) = made.rejected
    return rejected


def test_an_order_is_its_row_with_the_cursor_in_utc() -> None:
    """Everything stays as it came but the date, which dlt has to compare as an instant."""
    local = "2024-01-02T05:04:05+02:00"
    came = order(status="paid", paid=True, items=[{"line": 1}], last_modified_date=local)

    made = rows_of(came)
    row = fields_of(made.row)

    assert row == order(status="paid", paid=True, last_modified_date=T)
    assert elements_of(made, "orders__items") == [{"line": 1}]
    assert row["last_modified_date"].utcoffset() == timedelta(0)


def test_the_cursor_is_read_as_the_setting_says() -> None:
    """The same number is 2024 in seconds and 1970 in milliseconds."""
    under = rows(cursor_format="epoch_milliseconds")

    row = row_of(order(last_modified_date=1_704_164_645), under)

    assert row["last_modified_date"] == datetime(1970, 1, 20, 17, 22, 44, 645_000, UTC)


def test_key_and_cursor_may_stand_deeper() -> None:
    """`primary_key` and `cursor_path` are paths; what stands beside them stays."""
    under = Rows("meta.id", "meta.updated_at")
    came: dict[str, Any] = {"meta": {"id": "A-1", "updated_at": AT, "by": "x"}, "total": 1}

    row = row_of(came, under)

    assert row == {"meta__id": "A-1", "meta__updated_at": T, "meta__by": "x", "total": 1}
    assert came["meta"]["updated_at"] == AT
    faulty: list[Any] = [None, "x", [], {"id": "A-1"}, {"updated_at": AT}]
    for meta in faulty:
        rejection_of({"meta": meta}, under)


NOT_AN_ORDER = "the order is no object"
NO_KEY = "order_id is missing"
ODD_KEY = "order_id is neither text nor a whole number"
NO_DATE = "last_modified_date is missing"
NO_TIME = "last_modified_date is not a readable time"


@pytest.mark.parametrize(
    ("came", "reason"),
    [
        (None, NOT_AN_ORDER),
        ("S3CRET", NOT_AN_ORDER),
        (5, NOT_AN_ORDER),
        ([{"order_id": "S3CRET"}], NOT_AN_ORDER),
        ({}, NO_KEY),
        ({"id": "S3CRET", "last_modified_date": AT}, NO_KEY),
        (order(None), NO_KEY),
        (order(""), NO_KEY),
        (order("  "), NO_KEY),
        (order(True), ODD_KEY),
        (order(Decimal("7.5")), ODD_KEY),
        (order({"S3CRET": 1}), ODD_KEY),
        (order(["S3CRET"]), ODD_KEY),
        ({"order_id": "S3CRET"}, NO_DATE),
        (order("S3CRET", last_modified_date=None), NO_DATE),
        (order("S3CRET", last_modified_date=""), NO_TIME),
        (order("A-1", last_modified_date="S3CRET"), NO_TIME),
        (order("A-1", last_modified_date="2024-13-45"), NO_TIME),
        (order("A-1", last_modified_date=False), "last_modified_date is a boolean, not a time"),
        (order("A-1", last_modified_date=["S3CRET"]), "last_modified_date is a list, not a time"),
        (order("A-1", last_modified_date={"S": 1}), "last_modified_date is an object, not a time"),
    ],
)
def test_what_cannot_be_merged_is_rejected_with_its_reason(came: Any, reason: str) -> None:
    """T8: one such order would fail the whole load. The reason holds nothing of the order."""
    under = rows()

    rejected = rejection_of(copy.deepcopy(came), under)

    assert rejected.reason == reason
    assert rejected.order == came
    assert (under.orders, len(under.rejected)) == (0, 1)


def test_the_same_fault_of_the_same_order_is_the_same_row() -> None:
    """The lag reads it again in every run; the table must not grow by it."""
    one = {"order_id": "A-1", "total": Decimal("1.50"), "items": [{"line": 1, "sku": "ä"}]}
    other = {"items": [{"sku": "ä", "line": 1}], "total": Decimal("1.50"), "order_id": "A-1"}

    first = rejection_of(one).row("order_id", T)
    again = rejection_of(other).row("order_id", T + HOUR)

    assert again == first | {"rejected_at": T + HOUR}


@pytest.mark.parametrize(
    "other",
    [
        {"order_id": "A-2"},
        {"order_id": "A-1", "total": 1},
        {"order_id": "A-1", "last_modified_date": "soon"},
        {"order_id": ""},
        None,
    ],
)
def test_another_order_or_another_fault_is_another_row(other: Any) -> None:
    """Merged into one row, all but one rejected order would be gone."""
    first = rejection_of({"order_id": "A-1"}).row("order_id", T)
    second = rejection_of(other).row("order_id", T)

    assert first["rejected_id"] != second["rejected_id"]


def test_the_same_order_with_another_fault_is_another_row() -> None:
    """What was said of it yesterday stays true, and so does what is said today."""
    one, other = (Rejected(why, {"order_id": "A-1"}).row("order_id", T) for why in ("a", "b"))

    assert one["rejected_id"] != other["rejected_id"]
    assert one["order_json"] == other["order_json"]


def test_a_rejected_row_holds_the_order_exactly() -> None:
    """It is all that is left of the order: no digit, no character and no null may be lost."""
    came = {
        "order_id": "A-1",
        "total": Decimal("10.10"),
        "rate": Decimal("0.12345678901234567890"),
        "big": 10**30,
        "note": 'ä 日本 🛒 "quoted" \n\x00',
        "gift": None,
        "items": [{"line": 1, "price": Decimal("2.5")}],
    }

    row = rejection_of(came).row("order_id", T)

    kept = json.loads(row["order_json"], parse_float=Decimal)
    assert str(kept["total"]) == "10.10"
    assert str(kept["rate"]) == "0.12345678901234567890"
    assert str(kept["items"][0]["price"]) == "2.5"
    same = ("order_id", "big", "note", "gift")
    assert {key: kept[key] for key in same} == {key: came[key] for key in same}
    assert "日本" in row["order_json"]
    assert row["reason"] == NO_DATE
    assert row["rejected_at"] == T


@pytest.mark.parametrize(
    ("came", "order_id"),
    [
        ({"order_id": "A-1"}, "A-1"),
        ({"order_id": 7}, "7"),
        ({"order_id": None}, None),
        ({"order_id": {"a": 1}}, None),
        ({"order_id": [1]}, None),
        ("no object", None),
    ],
)
def test_a_rejected_row_can_be_found_by_its_order_id(came: Any, order_id: str | None) -> None:
    """A text column whatever the id's type, so that the check finds the order once it is loaded."""
    assert rejection_of(came).row("order_id", T)["order_id"] == order_id


def test_ids_that_are_numbers_here_and_text_there_become_of_one_type() -> None:
    """T5, T18: one column has one type; with two, the merge would keep two versions of an order."""
    as_text, as_number = rows(key_type=str), rows(key_type=int)

    assert row_of(order(42), as_text)["order_id"] == "42"
    assert row_of(order("42"), as_text)["order_id"] == "42"
    assert row_of(order("42"), as_number)["order_id"] == 42
    assert row_of(order(42), as_number)["order_id"] == 42
    assert row_of(order(0), as_number)["order_id"] == 0


@pytest.mark.parametrize("key", ["A-1", "007", "4.0", " 42", "-", "٤٢", "²"])
def test_a_text_that_is_no_plain_number_is_rejected_among_numbers(key: str) -> None:
    """As a number, "007" would be merged into order 7."""
    rejected = rejection_of(order(key), rows(key_type=int))

    assert rejected.reason == "order_id is text where others are whole numbers"


def test_the_first_order_decides_the_type_of_the_id() -> None:
    """Before the first load there is no column to ask."""
    text_first, number_first = rows(), rows()

    row_of(order("A-1"), text_first)
    row_of(order(1), number_first)

    assert row_of(order(2), text_first)["order_id"] == "2"
    rejection_of(order("A-2"), number_first)


def test_numbers_with_a_fraction_stay_decimals() -> None:
    """As floats, 0.1 + 0.2 is not 0.3, and no sum agrees with the shop's to the cent."""
    prices = [Decimal("0.1"), Decimal("10.50"), Decimal("-1E+2"), Decimal("123456789.123456789")]

    made = rows_of(order(total=prices[0], items=[{"price": price} for price in prices[1:]]))

    found = [made.row["total"], *(item["price"] for item in made.of("orders__items"))]
    assert found == prices
    assert all(type(value) is Decimal for value in found)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (2**63, "9223372036854775808"),
        (-(2**64), "-18446744073709551616"),
        (Decimal("0.1234567891"), "0.1234567891"),
        (Decimal("1E+29"), "1E+29"),
        (Decimal("-123456789012345678901234567890.5"), "-123456789012345678901234567890.5"),
    ],
)
def test_a_number_its_column_cannot_hold_is_kept_as_text_beside_it(value: Any, text: str) -> None:
    """The column would cut it or refuse the whole load; dlt names such a column the same way."""
    made = rows_of(order(total=value, tax={"amount": value}, items=[{"price": value}]))

    assert made.row["total__v_text"] == text
    assert made.row["tax__amount__v_text"] == text
    assert elements_of(made, "orders__items") == [{"price__v_text": text}]
    assert "total" not in made.row


@pytest.mark.parametrize(
    "value",
    [
        0,
        2**63 - 1,
        -(2**63) + 1,
        Decimal("0.123456789"),
        Decimal("90000000000000000000000000000.123456789"),
        Decimal("90000000000000000000000000000.12345678900"),
        Decimal("19.99").quantize(Decimal("1E-38"), context=Context(prec=60)),
        Decimal("1E+28"),
    ],
)
def test_a_number_its_column_can_hold_stays_in_it(value: Any) -> None:
    """The largest and the finest that a 64-bit integer and a DECIMAL(38, 9) take."""
    row = row_of(order(total=value))

    assert row["total"] == value
    assert "total__v_text" not in row


@pytest.mark.parametrize("kind", ["bigint", "decimal", "double"])
def test_a_text_in_a_column_of_numbers_is_not_turned_into_a_number(kind: str) -> None:
    """dlt makes 7 of "007", and fails on nothing: the article number would just be another one."""
    under = with_columns(code=kind, items__sku=kind)

    made = rows_of(order(code="007", items=[{"sku": "0815", "line": 1}]), under)

    assert made.row["code__v_text"] == "007"
    assert "code" not in made.row
    assert elements_of(made, "orders__items") == [{"sku__v_text": "0815", "line": 1}]


def test_a_text_after_a_number_of_the_same_run_is_not_turned_into_one() -> None:
    """On a first load there is no column yet, but the first number has already decided its type."""
    under = rows()

    row_of(order(code=7), under)
    row = row_of(order(code="007"), under)

    assert row["code__v_text"] == "007"
    assert "code" not in row


@pytest.mark.parametrize(
    ("column", "value", "where", "kept"),
    [
        ("bool", 5, "x__v_bigint", 5),
        ("bool", "true", "x__v_text", "true"),
        ("bigint", True, "x__v_bool", True),
        ("decimal", True, "x__v_bool", True),
        ("timestamp", 5, "x__v_bigint", 5),
        ("timestamp", "soon", "x__v_text", "soon"),
        ("timestamp", "2024-01-02 03:04:05", "x", T),
        ("timestamp", "2024-01-02T05:04:05+02:00", "x", T),
        ("bigint", AT, "x__v_timestamp", T),
        ("text", AT, "x", AT),
        ("text", True, "x", "true"),
        ("text", Decimal("1.50"), "x", "1.50"),
        ("text", 2**70, "x", str(2**70)),
        ("double", Decimal("1.5"), "x__v_decimal", Decimal("1.5")),
        ("decimal", 5, "x", Decimal(5)),
        (None, AT, "x", T),
        (None, "2024-01-02T03:04:05.123456789Z", "x", "2024-01-02T03:04:05.123456789Z"),
        (None, "2024-02-30T00:00:00Z", "x", "2024-02-30T00:00:00Z"),
        (None, "2024-01-02", "x", "2024-01-02"),
    ],
)
def test_a_value_goes_where_nothing_of_it_is_lost(
    column: str | None, value: Any, where: str, kept: Any
) -> None:
    """dlt makes true of 5, 1970-01-01T00:00:05 of 5, and 7 of "007": wherever Python can."""
    under = rows(values=Values({(ORDERS, "x"): column, ("orders__l", "value"): column}.get))

    made = rows_of(order(x=value, l=[value]), under)

    assert made.row[where] == kept
    assert type(made.row[where]) is type(kept)
    beside = where.removeprefix("x")
    assert elements_of(made, "orders__l") == [{f"value{beside}": kept}]


def test_a_rejected_order_does_not_decide_the_type_of_the_id() -> None:
    """One broken order with the id 0 would have every other order rejected."""
    under = rows()

    rejection_of({"order_id": 0, "last_modified_date": None}, under)

    assert row_of(order("A-1"), under)["order_id"] == "A-1"


def test_an_id_that_no_number_column_holds_is_text() -> None:
    """Unsigned 64-bit ids exist; among numbers such an id is rejected, since it is no key there."""
    assert row_of(order(2**63))["order_id"] == str(2**63)
    rejection_of(order(2**63), rows(key_type=int))
    rejection_of(order("9" * 5000), rows(key_type=int))


def test_a_field_that_is_named_like_one_of_dlts_own_does_not_replace_it() -> None:
    """dlt takes `_dlt_id` for the identity of the row, and its items would lose their order."""
    made = rows_of(order(_dlt_id="theirs"))

    assert made.row["api_dlt_id"] == "theirs"
    assert made.row["_dlt_id"] != "theirs"


def test_numbers_are_numbers_in_the_json_of_a_rejected_order() -> None:
    """As text they would not be the shop's JSON any more."""
    row = rejection_of({"order_id": "A", "total": Decimal("10.10")}).row("order_id", T)

    assert row["order_json"] == '{"order_id": "A", "total": 10.10}'


@pytest.mark.parametrize("kind", ["text", "json"])
def test_a_text_stays_in_its_column_unless_that_holds_numbers(kind: str) -> None:
    """A column of its own for every text would be a table nobody can read."""
    assert row_of(order(code="007"), with_columns(code=kind))["code"] == "007"


def test_a_number_in_a_column_of_text_stays_there() -> None:
    """As text nothing of it is lost, and the texts that follow still belong in the column."""
    under = with_columns(code="text")

    assert row_of(order(code=7), under)["code"] == "7"
    assert row_of(order(code="007"), under)["code"] == "007"


def test_half_a_character_does_not_stop_the_load() -> None:
    """A lone surrogate is legal in JSON, and neither a file in UTF-8 nor a database takes it."""
    made = rows_of(order("A-\ud800", note="x\udfffy", items=[{"sku": "\ud83d", "t": ["\udead"]}]))
    whole = row_of(order(note="ä 🛒"))
    rejected = rejection_of({"order_id": None, "note": "\ud800"}).row("order_id", T)

    for found in (made.row, made.children, rejected):
        json.dumps(found, default=str, ensure_ascii=False).encode()
    assert made.row["note"] == "x?y"
    assert whole["note"] == "ä 🛒"


def test_objects_become_columns_and_lists_become_tables() -> None:
    """Whoever joins the tables gets the order back: nothing of its shape is lost."""
    fields: dict[str, Any] = {
        "customer": {"name": "Ada", "address": {"zip": "01234", "lines": ["a", "b"]}},
        "items": [{"line": 1, "options": [{"k": "x", "v": 1}, {}]}, {"line": 2}],
        "grid": [[1, 2], [], [3]],
        "mixed": [1, {"a": 2}, [3], None],
        "empty": {},
        "none": [],
        "false": False,
        "blank": "",
    }

    made = rows_of(order(**fields))

    assert fields_of(made.row) == order(
        customer__name="Ada",
        customer__address__zip="01234",
        false=False,
        blank="",
        last_modified_date=T,
    )
    assert {name: elements_of(made, name) for name, _ in made.children} == {
        "orders__customer__address__lines": [{"value": "a"}, {"value": "b"}],
        "orders__items": [{"line": 1}, {"line": 2}],
        "orders__items__options": [{"k": "x", "v": 1}, {}],
        "orders__grid": [{}, {}, {}],
        "orders__grid__list": [{"value": 1}, {"value": 2}, {"value": 3}],
        "orders__mixed": [{"value": 1}, {"a": 2}, {}, {}],
        "orders__mixed__list": [{"value": 3}],
    }


def test_rows_are_linked_as_dlt_links_them() -> None:
    """Its merge removes what belongs to the root of an order, and joins go by the parent."""
    items = [{"line": 1, "options": [{"k": "x"}, {"k": "y"}]}, {"line": 2, "options": [{"k": "z"}]}]
    under = rows()

    made, other = rows_of(order(items=items), under), rows_of(order("B", items=items), under)

    root = made.row["_dlt_id"]
    assert root != other.row["_dlt_id"]
    lines = made.of("orders__items")
    assert [(row["_dlt_parent_id"], row["_dlt_list_idx"]) for row in lines] == [
        (root, 0),
        (root, 1),
    ]
    by_line = {row["_dlt_id"]: row["line"] for row in lines}
    options = made.of("orders__items__options")
    found = [(by_line[row["_dlt_parent_id"]], row["_dlt_list_idx"], row["k"]) for row in options]
    assert found == [(1, 0, "x"), (1, 1, "y"), (2, 0, "z")]
    assert {row["_dlt_root_id"] for _, row in made.children} == {root}
    ids = [
        row["_dlt_id"] for one in (made, other) for _, row in (("orders", one.row), *one.children)
    ]
    assert len(ids) == len(set(ids))


def test_a_null_is_a_null_column() -> None:
    """Any field of an order may be null, and is then neither text nor a fault."""
    made = rows_of(order(note=None, total=None, customer={"name": None}, items=[{"price": None}]))

    assert fields_of(made.row) == order(last_modified_date=T)
    assert elements_of(made, "orders__items") == [{}]


def test_the_order_that_came_is_not_changed() -> None:
    """The page is also what the paginator reads its times from."""
    came = order(total=2**70, customer={"name": "\ud800"}, items=[{"price": None}], gift=None)
    before = copy.deepcopy(came)

    row_of(came)

    assert came == before


def test_orders_that_only_the_lag_made_this_run_read_are_remembered() -> None:
    """They are counted as unchanged if the table has them in this version: with the newest time."""
    under = rows(watermark=T)

    for key, time in [
        ("before", T - HOUR),
        ("at the watermark", T),
        ("after", T + HOUR),
        ("twice", T - HOUR),
        ("twice", T - HOUR / 2),
        ("changed while reading", T - HOUR),
        ("changed while reading", T + HOUR),
        ("in another offset", T),
        ("seen newer first", T + HOUR),
        ("seen newer first", T),
    ]:
        row_of(order(key, last_modified_date=time.isoformat()), under)

    assert under.read_again == {
        "before": T - HOUR,
        "at the watermark": T,
        "twice": T - HOUR / 2,
        "in another offset": T,
    }


def test_without_a_watermark_nothing_is_read_again() -> None:
    """On a first load every order is new, and remembering all of them would fill the memory."""
    under = rows()

    for n in range(3):
        row_of(order(n), under)

    assert under.read_again == {}


def test_what_is_read_again_is_remembered_under_the_id_of_the_table() -> None:
    """It is looked up there: the text "42" would never be found among numbers."""
    under = rows(watermark=T, key_type=int)

    row_of(order("42"), under)

    assert under.read_again == {42: T}


def test_orders_are_counted_and_the_newest_time_is_kept() -> None:
    """The newest time becomes the watermark: of mergeable orders only, in whatever order they come."""
    under = rows()

    for came in [
        order("A", last_modified_date="2024-01-02T03:04:05Z"),
        order("B", last_modified_date="2024-01-02T04:30:00+02:00"),
        order("A", last_modified_date="2024-01-02T03:04:04.999Z"),
        order(None, last_modified_date="2025-01-01T00:00:00Z"),
        order("C", last_modified_date="someday"),
    ]:
        under.of([came])

    assert (under.orders, len(under.rejected)) == (3, 2)
    assert under.newest == T


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
numbers = st.one_of(
    st.integers(),
    st.integers(-(2**66), 2**66),
    st.decimals(allow_nan=False, allow_infinity=False),
)
values = st.recursive(
    st.one_of(texts, numbers, st.booleans()),
    lambda inner: (
        st.dictionaries(st.sampled_from("abcd"), inner, max_size=3)
        | st.lists(st.dictionaries(st.sampled_from("abcd"), inner, max_size=3), max_size=3)
    ),
    max_leaves=8,
)
column_types = st.sampled_from([None, "text", "bigint", "decimal", "double", "bool", "timestamp"])


def exact(value: Any) -> Any:
    """To compare by: 1 and True are equal to Python, but not the same value."""
    if isinstance(value, dict):
        return {key: exact(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [exact(inner) for inner in value]
    if isinstance(value, (int, Decimal)) and not isinstance(value, bool):
        return ("number", str(EXACTLY.normalize(Decimal(value)) or 0))
    return (type(value).__name__, str(value))


EXACTLY = Context(prec=10_000, Emax=MAX_EMAX, Emin=MIN_EMIN)


def put_back(made: OrderRows, row: dict[str, Any], table: str) -> dict[str, Any]:
    """The object that a row was made of: variants under their field's name, lists from their tables."""
    fields: dict[str, Any] = {}
    for name, value in fields_of(row).items():
        *levels, field = name.partition("__v_")[0].split("__")
        holder = fields
        for level in levels:
            holder = holder.setdefault(level, {})
        assert field not in holder, "a field is in two columns"
        holder[field] = exact(value)
    of = f"{natural(table)}__"
    for child in {name for name, _ in made.children if natural(name).startswith(of)}:
        *levels, field = natural(child).removeprefix(of).split("__")
        mine = [one for one in made.of(child) if one["_dlt_parent_id"] == row["_dlt_id"]]
        if mine:
            holder = fields
            for level in levels:
                holder = holder.setdefault(level, {})
            holder[field] = [put_back(made, one, child) for one in mine]
    return fields


def natural(table: str) -> str:
    """The name of a table without what tells it from that of a list elsewhere."""
    return re.sub(r"__v_\d+$", "", table)


def without_empty(value: Any) -> Any:
    """As tables tell it: an object without fields or an empty list leaves nothing behind."""
    if isinstance(value, dict):
        kept = {key: without_empty(inner) for key, inner in value.items()}
        return {key: inner for key, inner in kept.items() if inner not in ({}, [])}
    if isinstance(value, list):
        return [without_empty(inner) for inner in value]
    return value


def same(came: Any, kept: Any) -> bool:
    if isinstance(came, dict):
        return came.keys() == kept.keys() and all(same(came[key], kept[key]) for key in came)
    if isinstance(came, list):
        return len(came) == len(kept) and all(map(same, came, kept))
    as_text = str(came).lower() if isinstance(came, bool) else str(came)
    return bool(kept in (exact(came), ("str", as_text)))


@settings(derandomize=True, deadline=None)
@given(
    orders=st.lists(st.dictionaries(st.sampled_from("abcd"), values), max_size=4),
    together=st.integers(1, 4),
    data=st.data(),
)
def test_no_value_is_lost_whatever_the_columns_are(
    orders: list[dict[str, Any]], together: int, data: st.DataObject
) -> None:
    """In its own column or in one beside it, and exactly, whatever came before it or with it."""
    known: dict[Column, str | None] = {
        (ORDERS, "order_id"): "text",
        (ORDERS, "last_modified_date"): "timestamp",
    }

    def type_of(column: Column) -> str | None:
        if column not in known:
            known[column] = data.draw(column_types)
        return known[column]

    under = rows(values=Values(type_of))
    came = [order(str(n), **fields) for n, fields in enumerate(orders)]
    for start in range(0, len(came), together):
        some = came[start : start + together]
        made = OrderRows(under.of(some).batches)
        found = {row["order_id"]: put_back(made, row, ORDERS) for row in made.of(ORDERS)}
        for one in some:
            kept = found.pop(one["order_id"])
            given = {name: value for name, value in one.items() if name not in order()}
            assert same(without_empty(given), {n: kept[n] for n in kept if n not in order()})
        assert not found


def test_a_field_called_like_a_variant_is_not_in_its_column() -> None:
    """`code__v_text` is where a text in a field of numbers goes, and `v_text` in an object `code`."""
    under = rows(naming=default_naming())

    row_of(order(code=7), under)
    beside = row_of(order(code="x"), under)
    inside = row_of(order(code={"v_text": 5, "vText": 6, "v_2": [1]}), under)

    assert beside["code__v_text"] == "x"
    assert {name: inside[name] for name in inside if name not in order()} == {
        "code__api_v_text": 5,
        "code__api_v_text_2": 6,
    }


AWKWARD = (
    *(
        "x",
        "X",
        "x_y",
        "xY",
        "x__y",
        "v_text",
        "vText",
        "v_2",
        "v_bigint",
        "value",
        "list",
        "_",
        "",
    ),
    *("_dlt_id", "_DltId", "-dlt-list-idx", "_dlt_load_id", "deletedAt", "deleted_at", "orders"),
)
shapes = st.recursive(
    st.sampled_from(["number", "text", "fraction"]),
    lambda inner: (
        st.dictionaries(st.sampled_from(AWKWARD), inner, max_size=4) | st.lists(inner, max_size=3)
    ),
    max_leaves=10,
)


@settings(derandomize=True, deadline=None, max_examples=80)
@given(
    pages=st.lists(
        st.lists(st.dictionaries(st.sampled_from(AWKWARD), shapes, max_size=4), min_size=1),
        min_size=1,
        max_size=3,
    )
)
def test_no_value_is_lost_whatever_the_fields_are_called(pages: list[list[dict[str, Any]]]) -> None:
    """Two fields in one column: the second would take the place of the first, or its type."""
    numbers = itertools.count(1, 2)  # without zeros at the end, which have two spellings
    under, schema = rows(naming=default_naming()), dlt.Schema("orders")
    came, kept = Counter[str](), Counter[str]()

    def filled(shape: Any) -> Any:
        """With a value of its own at each end."""
        if isinstance(shape, dict):
            return {name: filled(inner) for name, inner in shape.items()}
        if isinstance(shape, list):
            return [filled(inner) for inner in shape]
        n = next(numbers)
        value: Any = {"number": n, "text": f"t{n}", "fraction": n + Decimal("0.5")}[shape]
        came[exact(value)[1]] += 1
        return value

    with TemporaryDirectory() as directory:
        files = LoadFiles(schema, Path(directory), "load-1")
        for page in pages:
            some = [order(f"o{next(numbers)}", **filled(shape)) for shape in page]
            files.write(under.of(some).batches)
        files.close()
        for file in Path(directory).iterdir():
            for row in pq.read_table(file).to_pylist():
                found = fields_of(row)
                found.pop("last_modified_date", None)
                kept.update(exact(value)[1] for value in found.values() if value is not None)

    assert {key: n for key, n in kept.items() if not key.startswith("o")} == came


@pytest.mark.parametrize(
    ("path", "column"),
    [
        ("order_id", "order_id"),
        ("orderId", "order_id"),
        ("OrderID", "order_id"),
        ("$.order_id", "order_id"),
        ("meta.updatedAt", "meta__updated_at"),
        ("$.meta.updatedAt", "meta__updated_at"),
        ("last-modified", "last_modified"),
        ("1st", "_1st"),
        ("a.b.c", "a__b__c"),
    ],
)
def test_a_path_has_the_column_name_that_dlt_gives_it(path: str, column: str) -> None:
    """The key and the cursor are asked for by these names in SQL."""
    assert column_name(path) == column


@pytest.mark.parametrize(
    ("path", "place"),
    [
        (("total",), ("orders", "total")),
        (("shippingAddress", "zipCode"), ("orders", "shipping_address__zip_code")),
        (("items", LIST, "unit_price"), ("orders__items", "unit_price")),
        (("lineItems", LIST, "taxLines", LIST, "Rate"), ("orders__line_items__tax_lines", "rate")),
        (("lineItems", LIST, "discount", "amount"), ("orders__line_items", "discount__amount")),
        (("delivery", "parcels", LIST, "weight"), ("orders__delivery__parcels", "weight")),
        (("weights", LIST), ("orders__weights", "value")),
    ],
)
def test_a_field_has_the_table_and_column_that_dlt_gives_it(
    path: tuple[str, ...], place: tuple[str, str]
) -> None:
    """T18: a decimal column declared anywhere else would be empty, and the field split after all."""
    assert default_naming().place(path) == place
    assert place in dlt_places(path)


def dlt_places(path: tuple[str, ...]) -> Iterable[tuple[str, str]]:
    """All tables and columns that dlt's normalizer makes of an order with one field."""
    item: Any = 1
    for part in reversed(path):
        item = [item] if part == LIST else {part: item}
    for (table, *_), row in dlt.Schema("orders").normalize_data_item(item, "load", "orders"):
        yield from ((table, name) for name in row)


def test_the_rows_are_those_that_dlts_normalizer_makes() -> None:
    """Tables of an earlier version, and everything written about dlt's tables, stay true."""
    came = order(
        Customer={"firstName": "Ada", "address": {"zip": "01", "Lines": ["a", "b"]}},
        items=[{"line": 1, "taxLines": [{"rate": 5}, {"rate": 7}]}, {"line": 2}],
        grid=[[1, 2], [3]],
    )

    made = rows_of(came, rows(naming=default_naming()))

    ours = [("orders", fields_of(made.row) | {"last_modified_date": AT})]
    ours += [(table, fields_of(row)) for table, row in made.children]
    theirs = [
        (table, fields_of(dict(row)))
        for (table, *_), row in dlt.Schema("orders").normalize_data_item(came, "load", "orders")
    ]
    assert sorted((t, sorted(r.items())) for t, r in ours) == sorted(
        (t, sorted(r.items())) for t, r in theirs
    )


def column_types_of(schema: dlt.Schema, table: str) -> dict[str, str | None]:
    columns = schema.tables[table]["columns"]
    return {name: column.get("data_type") for name, column in columns.items()}


def schema_with(table: str, **columns: Any) -> dlt.Schema:
    schema = dlt.Schema("orders")
    made: list[TColumnSchema] = [{"name": n, "data_type": kind} for n, kind in columns.items()]
    schema.update_table(new_table(table, columns=made))
    return schema


def test_a_table_is_declared_with_its_columns_and_links() -> None:
    """dlt finds the rows of an order by these hints, and refuses a list whose parent it does not know."""
    schema = dlt.Schema("orders")
    schema.update_table(new_table("orders", write_disposition="merge"))

    declare(schema, Table("orders", None, {"total": "decimal", "order_id": "text"}))
    declare(schema, Table("orders__items", "orders", {"price": "bigint"}))
    declare(schema, Table("orders__items__taxes", "orders__items", {"value": "decimal"}))

    parents = {name: table.get("parent") for name, table in schema.tables.items() if name[0] != "_"}
    assert parents == {
        "orders": None,
        "orders__items": "orders",
        "orders__items__taxes": "orders__items",
    }
    assert schema.tables["orders"]["write_disposition"] == "merge"
    assert column_type(schema, ("orders", "total")) == "decimal"
    assert column_type(schema, ("orders__items", "price")) == "bigint"
    assert column_type(schema, ("orders__items__taxes", "value")) == "decimal"
    assert column_type(schema, ("orders", "total__x")) is None
    assert column_type(schema, ("orders__gifts", "value")) is None
    assert column_type(None, ("orders", "total")) is None
    hints = {
        name: [hint for hint in ("row_key", "parent_key", "root_key") if column.get(hint)]
        for name, column in schema.tables["orders__items"]["columns"].items()
    }
    assert hints == {
        "price": [],
        "_dlt_root_id": ["root_key"],
        "_dlt_parent_id": ["parent_key"],
        "_dlt_list_idx": [],
        "_dlt_id": ["row_key"],
    }


def test_a_column_of_whole_numbers_becomes_decimal_and_keeps_its_hints() -> None:
    """T18: the first fraction may come after the column was made, also in the key's own table."""
    schema = schema_with("orders", total="bigint", other="bigint")
    schema.tables["orders"]["columns"]["total"]["nullable"] = False

    declare(schema, Table("orders", None, {"total": "decimal", "other": "bigint"}))

    assert column_types_of(schema, "orders")["total"] == "decimal"
    assert column_types_of(schema, "orders")["other"] == "bigint"
    assert schema.tables["orders"]["columns"]["total"]["nullable"] is False


@pytest.mark.parametrize(
    ("number", "fits"),
    [
        ("0", True),
        ("0.000000001", True),
        ("0.0000000001", False),
        ("90000000000000000000000000000.123456789", True),
        ("100000000000000000000000000000", False),
        ("-100000000000000000000000000000", False),
        ("NaN", False),
        ("Infinity", False),
    ],
)
def test_a_decimal_has_29_digits_before_the_point_and_9_behind(number: str, fits: bool) -> None:
    """dlt's DECIMAL(38, 9), for every destination; more digits would be rounded or refused."""
    assert fits_decimal(Decimal(number)) is fits


near_times = st.from_regex(
    r"(000[01]|2024|9999)-(01|02|12)-(01|30|31)[T ](00|23|24)(:(00|59|60)(:(00|59|60)(\.[0-9]{1,8})?)?)?"
    r"(Z|z|[+-](00|02|14|25)(:?(00|30|75))?)?",
    fullmatch=True,
)


@settings(derandomize=True, deadline=None, max_examples=500)
@given(st.lists(near_times | st.none() | texts, min_size=1, max_size=3))
def test_times_read_together_are_those_read_one_by_one(came: list[str | None]) -> None:
    """Arrow reads a whole column; what it would take otherwise than values.py must not reach it."""
    array = array_at_once(came, {type(text) for text in came} - {type(None)}, "timestamp")

    if array is not None:
        assert array.to_pylist() == [text and as_timestamp(text) for text in came]


def test_most_columns_are_made_at_once() -> None:
    """The fast way is the usual one: a column that always fell back would be right, and slow."""
    plain = {"text": "ä", "bigint": 2**63 - 1, "decimal": Decimal("1.5"), "bool": True}
    for kind, value in (plain | {"timestamp": AT}).items():
        assert array_at_once([None, value], {type(value)}, kind) is not None
    assert array_at_once([1, Decimal("1.5")], {int, Decimal}, "decimal") is not None


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("text", "\ud800"),
        ("text", 1),
        ("bigint", 2**63),
        ("bigint", True),
        ("bigint", Decimal("1.5")),
        ("decimal", Decimal("0.1234567891")),
        ("decimal", Decimal("1E+29")),
        ("bool", 1),
        ("timestamp", "soon"),
        ("timestamp", 5),
        ("double", Decimal("1.5")),
        ("date", "2024-01-02"),
    ],
)
def test_what_a_column_does_not_hold_exactly_is_looked_at(kind: str, value: Any) -> None:
    """Made at once, it would be cut, converted, or stop the load."""
    assert array_at_once([None, value], {type(value)}, kind) is None


def test_of_several_versions_read_together_the_newest_is_the_row() -> None:
    """T5: the older one would overwrite it, or be a second row; of equal times the later read wins."""
    under = rows()
    early, late = (T - HOUR).isoformat(), T.isoformat()

    made = under.of(
        [
            order("A", last_modified_date=late, n=2, items=[{"line": 1}]),
            order("A", last_modified_date=early, n=1, items=[{"line": 1}, {"line": 2}]),
            order("B", last_modified_date=late, n=3),
            order("B", last_modified_date=late, n=4),
        ]
    )

    found = OrderRows(made.batches)
    assert [(row["order_id"], row["n"]) for row in found.of(ORDERS)] == [("A", 2), ("B", 4)]
    assert len(found.of("orders__items")) == 1
    assert under.orders == 4


@pytest.mark.parametrize(
    ("mark", "since"),
    [
        (True, T),
        (1, T),
        ("cancelled by shop", T),
        ("2023-06-01T00:00:00Z", datetime(2023, 6, 1, tzinfo=UTC)),
        ("2099-06-01T00:00:00Z", T),
        (None, None),
        (False, None),
        (0, None),
        (Decimal("0.0"), None),
        ("", None),
        *((text, None) for text in ("false", "FALSE", " ", "0.0", "no", "N", "null", "None")),
        ([], None),
        ({}, None),
        *((f"{day}T00:00:00Z", None) for day in ("0001-01-01", "1970-01-01", "9999-12-31")),
        ("0000-00-00 00:00:00", None),
    ],
)
def test_an_order_that_the_api_marks_is_deleted_since_then(
    mark: Any, since: datetime | None
) -> None:
    """A flag, a status or a date: never later than its modification, or it would seem to be missing."""
    under = rows(soft_delete_path="meta.removed")

    assert row_of(order(meta={"removed": mark}), under).get("deleted_at") == since


def test_elements_that_are_objects_here_and_values_there_share_a_column() -> None:
    """`value` is dlt's name for what is no object, and may be a field of one that is: none is lost."""
    made = rows().of(
        [
            order("A", tags=["red", {"name": "x", "value": 5}, ["in"]]),
            order("B", tags=[{"value": "y", "list": ["too"]}]),
        ]
    )

    found = OrderRows(made.batches)
    assert [row.get("value") for row in found.of("orders__tags")] == ["red", "5", None, "y"]
    assert [row["value"] for row in found.of("orders__tags__list")] == ["in", "too"]


def test_an_order_that_is_nested_too_deep_does_not_keep_the_others_away() -> None:
    """One such order would end Python's recursion, and with it every load."""
    deep: Any = 1
    for _ in range(70):
        deep = {"a": deep}
    lists: Any = 1
    for _ in range(61):
        lists = [lists]
    under = rows()

    made = under.of([order(0, x=deep), order("A-1", x=1), order("A-2", x=lists), order(None)])

    assert [row["order_id"] for row in OrderRows(made.batches).of(ORDERS)] == ["A-1"]
    too_deep = "the order is nested more than 60 levels deep"
    assert [one.reason for one in made.rejected] == [too_deep, too_deep, NO_KEY]


def test_an_order_that_nothing_can_write_out_is_still_rejected() -> None:
    """Read at the bottom of the stack and written near its end, it would fail the run instead."""
    deep: Any = 1
    for _ in range(980):
        deep = [deep]

    rejected = rejection_of(order(0, x=deep)).row("order_id", T)

    assert rejected["order_id"] == "0"
    assert '"..."' in rejected["order_json"]


@pytest.mark.parametrize("levels", range(56, 64))
@pytest.mark.parametrize("kind", ["objects", "lists", "objects in lists"])
def test_what_is_too_deep_is_rejected_and_what_is_not_is_loaded(levels: int, kind: str) -> None:
    """Nothing in between: an order that has no place and is not rejected would stop every run."""
    value: Any = 1
    for level in range(levels):
        is_list = kind == "lists" or (kind == "objects in lists" and level % 2)
        value = [value] if is_list else {"a": value}

    made = rows().of([order(x=value)])

    assert len(made.rejected) + len(OrderRows(made.batches).of(ORDERS)) == 1
