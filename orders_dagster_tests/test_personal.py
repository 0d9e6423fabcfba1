"""Personal data: what a setting covers reaches no table, no file, no log, no event and no message."""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pyarrow.parquet as pq
import pytest
from dagster import DagsterInstance
from hypothesis import given, settings
from hypothesis import strategies as st

from orders_dagster.definitions import defs
from orders_dagster.errors import SettingsError
from orders_dagster.personal import HASH_DIGITS, MASK, PersonalData
from orders_dagster.rows import Rows
from orders_dagster.settings import read_settings
from orders_dagster_tests.small_api import Api
from orders_dagster_tests.world import Project, Shop

KEY = "0123456789abcdef0123456789abcdef"
SECRET = "S3CRET"
NUMBER = 530_530
OPEN = "plain-to-see"
AT = "2024-01-02T03:04:05Z"

COVERED = {
    "customer.email": "hash",
    "customer.name": "mask",
    "shipping_address": "drop",
    "contacts": "mask",
    "items.note": "drop",
    "items.engraving": "hash",
}


def secret(n: int) -> str:
    return f"{SECRET}-{n}@example.com"


def good(order_id: Any) -> dict[str, Any]:
    """An order as the settings expect it; `status` is covered by none of them."""
    return {
        "order_id": order_id,
        "last_modified_date": AT,
        "status": OPEN,
        "customer": {"id": 7, "email": secret(1), "name": secret(2)},
        "shipping_address": {"city": secret(3), "lines": [secret(4)]},
        "contacts": [{secret(5): "by phone"}, secret(6)],
        "items": [
            {"line": 1, "sku": "S1", "note": secret(7), "engraving": secret(8)},
            {"line": 2, "sku": "S2", "note": {secret(9): 1}, "engraving": None},
        ],
    }


ODD: tuple[dict[str, Any], ...] = (
    {"customer": secret(1)},
    {"customer": [secret(1), {"email": {secret(2): [secret(3)]}, "name": [[secret(4)]]}]},
    {"customer": {"email": [secret(1)], "name": {"first": secret(2)}}},
    {"shipping_address": secret(1), "contacts": secret(2)},
    {"items": secret(1)},
    {"items": {"line": 1, "note": secret(1), "engraving": {secret(2): secret(3)}}},
    {"items": [secret(1), [{"line": 1, "note": secret(2)}, secret(3)]]},
    {"customer.email": secret(1), "items.note": [secret(2)]},
)
"""Fields of another shape than the settings expect."""

UNREADABLE = {"last_modified_date": "never"}
NOT_AN_ORDER = f"{SECRET} is no order"


def orders_of_all_kinds() -> list[Any]:
    """Good orders, odd ones, and each of them as one that is rejected."""
    odd = [good(f"O-{n}") | fields for n, fields in enumerate(ODD)]
    rejected = [order | {"order_id": f"R-{order['order_id']}"} | UNREADABLE for order in odd]
    nobody = [good(None), good(None) | {"customer": secret(1)}]
    return [good("G-1"), good("G-2"), *odd, *rejected, *nobody]


def dump(database: Path) -> str:
    """Every value in every table of a file, and every name of a table or column."""
    with duckdb.connect(str(database), read_only=True) as connection:
        tables = connection.execute(
            "SELECT table_schema, table_name FROM information_schema.tables"
        ).fetchall()
        texts = []
        for schema, name in tables:
            found = connection.execute(f'SELECT * FROM "{schema}"."{name}"')
            texts.append(f"{name} {found.description} {found.fetchall()}")
    return "\n".join(texts)


def texts_in(directory: Path) -> Iterator[tuple[Path, str]]:
    """What is in the files of a directory, Parquet unpacked, beside their bytes."""
    for path in sorted(directory.rglob("*")):
        if path.is_file():
            content = path.read_bytes()
            yield path, content.decode("utf-8", "replace")
            if path.suffix == ".parquet" and content[-4:] == b"PAR1":
                yield path, str(pq.read_table(path).to_pylist())


def holding(text: str, directory: Path) -> set[str]:
    """The kinds of files in a directory that hold a text."""
    return {path.suffix for path, content in texts_in(directory) if text in content}


@pytest.fixture
def covered(project: Project) -> Project:
    """The project with the settings of this module."""
    project.set(personal_data=COVERED, personal_data_key=KEY)
    return project


def test_nothing_that_is_covered_is_anywhere_after_a_run(
    covered: Project,
    shop: Callable[..., Shop],
    instance: DagsterInstance,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """The promise, from the API to the page: good, odd and rejected orders, through the whole job."""
    file = tmp_path_factory.mktemp("shop") / "orders.ndjson"
    rows = [*orders_of_all_kinds(), NOT_AN_ORDER]
    file.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    shop(orders_from=str(file))

    result = defs.resolve_job_def("orders_job").execute_in_process(instance=instance)

    tables = dump(covered.database)
    events = "\n".join(str(entry) for entry in instance.all_logs(result.run_id))
    # What is not covered is found where it should be, so the search would find what is.
    assert OPEN in tables
    assert "R-O-1" in events
    assert covered.scalar("SELECT count(*) FROM ecommerce.orders") == 2 + len(ODD)
    rejected = covered.query("SELECT order_json FROM ecommerce.orders_rejected")
    assert len(rejected) == len(ODD) + 2 + 1
    assert (json.dumps(MASK),) in rejected
    assert holding("R-O-1", covered.directory)
    assert SECRET not in tables
    assert SECRET not in events
    assert holding(SECRET, covered.directory) == set()
    assert holding(KEY, covered.directory) == set()


@pytest.mark.parametrize("paging", ["seek", "offset"])
def test_nothing_that_is_covered_is_in_the_working_files_of_a_load(
    covered: Project, paging: str
) -> None:
    """A process that is killed leaves them behind, and backups may take them along at any time."""
    orders = [*orders_of_all_kinds(), None, NOT_AN_ORDER, [good("L-1"), [NOT_AN_ORDER]], 7]

    def answer(query: dict[str, str]) -> dict[str, Any]:
        offset, since = int(query["offset"]), query["modified_since"]
        found = orders if since < "2024" else orders[:1]  # the others have no date
        return {"orders": found[offset : offset + int(query["limit"])], "total": len(found)}

    lines: list[str] = []
    seen: set[str] = set()

    def search(line: str) -> None:
        lines.append(line)
        seen.update(holding(OPEN, covered.directory))
        assert holding(SECRET, covered.directory) == set()

    with Api(answer).running() as api:
        covered.point_at(api.url, login=False)
        covered.set(paging=paging)
        done = covered.synchronise(search)

    # Null, and the list; the text and the number are one mask, and so one rejected order.
    assert done.rejected == len(ODD) + 2 + 3
    assert ".parquet" in seen, "the search saw no files of rows"
    assert SECRET not in dump(covered.database) + "\n".join(lines)


def test_a_failure_shows_nothing_that_is_covered(
    covered: Project, shop: Callable[..., Shop], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """A message about an answer that is no page of orders shows names of fields, never their values."""
    file = tmp_path_factory.mktemp("shop") / "orders.ndjson"
    file.write_text(f"{json.dumps(good('A-1'))}\n{json.dumps(good('A-2'))}\n")
    shop(orders_from=str(file))
    covered.set(primary_key="number")

    with pytest.raises(SettingsError) as error:
        covered.synchronise()

    assert "customer" in str(error.value)
    assert SECRET not in str(error.value) + repr(error.value.__cause__)


def test_what_is_left_of_a_covered_field(covered: Project, shop: Callable[..., Shop]) -> None:
    """Hashes to join by, masks, and no column of what is dropped; nulls stay nulls."""
    store = shop(orders=0)
    store.put(
        good("A-1"),
        good("A-2") | {"customer": {"id": 8, "email": secret(1), "name": None}},
        good("A-3") | {"customer": None},
    )

    covered.synchronise()

    hashed = hmac.new(KEY.encode(), secret(1).encode(), "sha256").hexdigest()[:HASH_DIGITS]
    columns = "order_id, customer__id, customer__email, customer__name"
    assert covered.query(f"SELECT {columns} FROM ecommerce.orders ORDER BY order_id") == [
        ("A-1", 7, hashed, MASK),
        ("A-2", 8, hashed, None),
        ("A-3", None, None, None),
    ]
    assert not [name for name in covered.columns("orders") if name.startswith("shipping")]
    assert "note" not in covered.columns("orders__items")
    assert covered.query("SELECT DISTINCT value FROM ecommerce.orders__contacts") == [(MASK,)]


def test_what_was_loaded_before_stays_until_the_warehouse_is_made_anew(
    project: Project, shop: Callable[..., Shop]
) -> None:
    """The README says so: a setting changes no history, and starting over does."""
    store = shop(orders=0)
    store.put(good("A-1"), good("A-2") | {"last_modified_date": "2024-01-02T04:00:00Z"})
    project.synchronise()
    project.set(personal_data=COVERED, personal_data_key=KEY)
    store.put(good("A-2") | {"last_modified_date": "2024-01-03T00:00:00Z"})
    project.synchronise()

    emails = "SELECT order_id FROM ecommerce.orders WHERE customer__email LIKE 'S3CRET%'"
    assert project.query(emails) == [("A-1",)]
    project.database.unlink()
    project.synchronise()

    assert project.scalar("SELECT count(*) FROM ecommerce.orders") == 2
    assert SECRET not in dump(project.database)


def test_a_path_that_no_order_has_is_told(covered: Project, shop: Callable[..., Shop]) -> None:
    """A misspelt path covers nothing, and its field would be loaded as it is, in silence."""
    covered.set(personal_data=COVERED | {"customer.e-mail": "hash", "items.gift.to": "drop"})
    store = shop(orders=0)
    store.put(good("A-1"))
    lines: list[str] = []

    covered.synchronise(lines.append)

    told = [line for line in lines if line.startswith("personal_data")]
    assert told == [
        f"personal_data: no order has {path}. Is it spelt as in the response?"
        for path in ("customer.e-mail", "items.gift.to")
    ]


NAMES = ("a", "b", "c", "a.b", "b.c")
PATHS = st.lists(st.sampled_from(NAMES), min_size=1, max_size=3).map(".".join)
SHAPES = st.recursive(
    st.sampled_from([None, "text", 1]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=4)
    ),
    max_leaves=15,
)


def is_covered(names: tuple[str, ...], paths: set[str]) -> bool:
    """Whether a value behind fields of these names is covered: a path names one of the fields that lead
    to it, or leads on where there is nothing but the value."""
    starts = [".".join(names[:n]) for n in range(1, len(names) + 1)]
    whole = ".".join(names)
    return bool(paths & set(starts)) or any(path.startswith(f"{whole}.") for path in paths if whole)


def marked(shape: Any, paths: set[str], names: tuple[str, ...], kept: list[str]) -> Any:
    """An order of a shape, with a marker for each value: which of them are covered?"""
    if isinstance(shape, dict):
        return {name: marked(inner, paths, (*names, name), kept) for name, inner in shape.items()}
    if isinstance(shape, list):
        return [marked(inner, paths, names, kept) for inner in shape]
    if shape is None:
        return None
    if not names or is_covered(names, paths):
        return SECRET if shape == "text" else NUMBER
    kept.append(f"{OPEN}-{len(kept)}")
    return kept[-1]


@given(
    shapes=st.lists(SHAPES, max_size=4),
    treatments=st.dictionaries(
        PATHS, st.sampled_from(["hash", "mask", "drop"]), min_size=1, max_size=4
    ),
)
@settings(max_examples=300, deadline=None)
def test_no_covered_value_survives_and_no_other_is_touched(
    shapes: list[Any], treatments: dict[str, str]
) -> None:
    """Whatever the shape of an order: what rows are made of holds everything but what is covered."""
    kept: list[str] = []
    orders = [marked(shape, set(treatments), (), kept) for shape in shapes]

    left = json.dumps(PersonalData(treatments, KEY.encode()).protect(orders))

    assert SECRET not in left
    assert not re.search(rf'(?<![\w"]){NUMBER}', left), "as a number: a hash may hold its digits"
    assert [text for text in kept if f'"{text}"' not in left] == []


def test_a_hash_is_stable_and_keyed() -> None:
    """The same customer in two runs and two tables is one customer; without the key, nobody can guess."""

    def hashed(value: Any, key: str = KEY) -> Any:
        (order,) = PersonalData({"x": "hash"}, key.encode()).protect([{"x": value}])
        return order["x"]

    as_others_compute_it = hmac.new(KEY.encode(), "Ä 1".encode(), hashlib.sha256).hexdigest()
    assert hashed("Ä 1") == as_others_compute_it[:32]
    assert hashed("Ä 1", KEY[::-1]) != hashed("Ä 1")
    assert hashed("ä 1") != hashed("Ä 1"), "spelling counts"
    assert hashed(7) == hashed("7") != hashed(7.5)
    assert hashed(Decimal("7.50")) == hashed("7.50")
    assert hashed({"b": 1, "a": [2]}) == hashed({"a": [2], "b": 1}) != hashed({"a": [2]})
    assert hashed(["Ä 1", None, ["Ä 1"]]) == [hashed("Ä 1"), None, [hashed("Ä 1")]]
    assert hashed(None) is None
    assert len(hashed("\ud800")) == len(hashed("")) == len(hashed(True)) == 32


def test_an_order_that_no_recursion_can_follow_is_covered() -> None:
    """JSON may be nested deeper than Python calls functions: it ends neither the run nor the cover."""
    in_lists: Any = SECRET
    in_objects: Any = SECRET
    for _ in range(5000):
        in_lists, in_objects = [in_lists], {"x": in_objects}

    (order,) = PersonalData({"a": "mask", "b": "hash"}, KEY.encode()).protect(
        [{"a": in_lists, "b": in_objects}]
    )

    while type(order["a"]) is list:
        (order["a"],) = order["a"]
    assert order["a"] == MASK
    assert len(order["b"]) == 32
    assert SECRET not in str(order)


def test_a_hash_without_a_key_is_never_made() -> None:
    """It would look like one with a key, and be undone by trying all addresses."""
    with pytest.raises(ValueError, match="key"):
        PersonalData({"x": "hash"})


def test_nothing_is_done_where_nothing_is_set() -> None:
    """The list is the one that came: orders go through by the million."""
    orders = [good("A-1"), NOT_AN_ORDER]
    before = json.dumps(orders)

    assert PersonalData({}).protect(orders) is orders
    assert json.dumps(orders) == before


def test_a_rejected_order_has_no_digest_of_what_is_covered() -> None:
    """Its id is a hash without a key: two orders that differ in what is covered have the same."""
    ids = set()
    for n in (1, 2):
        order = good(None) | {"customer": {"name": secret(n)}}
        personal = PersonalData(COVERED, KEY.encode())
        (rejected,) = Rows("order_id", "last_modified_date").of(personal.protect([order])).rejected
        ids.add(rejected.row("order_id", datetime.now(UTC))["rejected_id"])
    assert len(ids) == 1


def problem(**given: Any) -> str:
    with pytest.raises(SettingsError) as error:
        read_settings(auth={"type": "none"}, **given)
    (problem,) = error.value.problems
    return problem


@pytest.mark.parametrize("path", ["meta.id", "meta", "meta.id.of", "meta.at", "meta.at.utc"])
@pytest.mark.parametrize("treatment", ["hash", "mask", "drop"])
def test_the_key_and_the_cursor_cannot_be_covered(path: str, treatment: str) -> None:
    """Nor what they are in: no order could be merged, or read from where the last run ended."""
    found = problem(
        primary_key="meta.id",
        cursor_path="$.meta.at",
        personal_data={path: treatment},
        personal_data_key=KEY,
    )

    assert found.startswith(f"sources.orders.personal_data: {path} covers meta.")
    beside = read_settings(
        auth={"type": "none"},
        primary_key="meta.id",
        cursor_path="meta.at",
        personal_data={"meta.identity": "drop", "met": "mask"},
    )
    assert len(beside.personal_data) == 2


def test_a_missing_key_is_named_with_the_way_to_make_one() -> None:
    """Whoever hashes for the first time has none yet."""
    found = problem(personal_data={"customer.email": "hash"})

    assert found.startswith("sources.orders.personal_data_key is missing. Looked in")
    assert "secrets.token_hex(32)" in found
    assert read_settings(auth={"type": "none"}, personal_data={"a": "mask"})


def test_a_key_that_can_be_guessed_is_refused_and_not_shown() -> None:
    """A short key is tried out as fast as addresses are."""
    found = problem(personal_data_key="s3cret-but-short")

    assert "at least 32 characters" in found
    assert "s3cret" not in found


@pytest.mark.parametrize(
    ("path", "what"),
    [
        ("", "is no path"),
        ("customer..email", "is no path"),
        (".email", "is no path"),
        ("items[*].note", "items.note is the note of each item"),
        ("items[].note", "items.note is the note of each item"),
        ("items[0].note", "items.note is the note of each item"),
        ("items.*.note", "items.note is the note of each item"),
        ("*", "items.note is the note of each item"),
    ],
)
def test_a_path_that_would_cover_nothing_is_refused(path: str, what: str) -> None:
    """JSONPath is what other settings take; here its lists would match no field, in silence."""
    found = problem(personal_data={path: "mask"})

    assert found.startswith("sources.orders.personal_data")
    assert what in found
