"""Every error a run can end with, grouped by what its reader does next.

    OrdersError
    ├── SettingsError          correct a setting; trying again changes nothing
    │   ├── CredentialsRefused     client_id, client_secret, token_url, or the auth table
    │   ├── ApiUnreachable         base_url or token_url: nothing has answered there yet
    │   ├── ApiRefused             path or params: a 4xx that no retry can cure
    │   ├── LoadedByAnother        primary_key or cursor_path: the tables were filled by another one
    │   ├── NoRecords              DAGSTER_HOME: where Dagster's records are
    │   └── ResponseNotUnderstood  data_selector, total_path, params: the API answers something else
    ├── SpanRefused            correct the start and the end that were given to a replay
    ├── ApiUnavailable         wait: the API kept failing after the last retry
    ├── PagesDisagree          wait: the pages do not add up to the total the API reports
    ├── WarehouseBusy          close the program that holds the warehouse
    ├── WarehouseChanged       nothing: the next run sees what is there
    ├── ColumnsAltered         set the type of a column back, or drop it
    ├── WarehouseRefused       see to the warehouse: its permissions
    └── DiskFull               make room on the disk

Errors take data and write their own message: the culprit, the consequence for the tables, the fix.
No message holds a response body, a token, a password or a field of an order.
"""

from __future__ import annotations

import errno
import logging
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

NOTHING_LOADED = "Nothing is half loaded; the next run goes on from the watermark."


class OrdersError(Exception):
    """Anything that stops a synchronisation and that its user can act on."""


class SettingsError(OrdersError):
    """Settings that are missing or cannot be right. Names every one of them, not only the first."""

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        if len(problems) == 1:
            super().__init__(problems[0])
        else:
            lines = "\n".join(f"{n}. {problem}" for n, problem in enumerate(problems, 1))
            super().__init__(f"{len(problems)} settings need attention:\n{lines}")


class CredentialsRefused(SettingsError):
    """The token endpoint or the API does not accept the credentials."""

    def __init__(self, *, url: str, answer: str, settings: str) -> None:
        self.url = url
        super().__init__(
            [
                f"The credentials were refused: {answer} from {url}. Correct {settings}. {NOTHING_LOADED}"
            ]
        )


class ApiUnreachable(SettingsError):
    """No connection could be made, and nothing has answered at this address in this run."""

    def __init__(self, *, url: str, reason: str, setting: str) -> None:
        super().__init__(
            [
                f"{url} cannot be reached ({reason}). Correct {setting}, "
                f"or check the network of this machine. {NOTHING_LOADED}"
            ]
        )


class ApiRefused(SettingsError):
    """The API answered with a status that no retry can cure."""

    def __init__(self, *, url: str, status: int, settings: str) -> None:
        self.url = url
        self.status = status
        what = f"The API answered {status} to {url}" if status else f"{url} was not asked"
        super().__init__([f"{what}. Correct {settings}. {NOTHING_LOADED}"])


class ResponseNotUnderstood(SettingsError):
    """The API answered, but not with a page of orders as the settings describe it."""

    def __init__(self, *, url: str, status: int, found: str, setting: str) -> None:
        super().__init__(
            [f"{url} answered {status}, but {found}. Correct {setting}. {NOTHING_LOADED}"]
        )


class LoadedByAnother(SettingsError):
    """The tables were filled by another primary key or modification date than the settings name."""

    def __init__(self, *, setting: str, column: str, loaded_by: Sequence[str], table: str) -> None:
        super().__init__(
            [
                f"The orders in the warehouse were loaded by {' and '.join(loaded_by)}, but "
                f"sources.orders.{setting} names {column}. Set it back; or drop {table}, and the next "
                "run reads all orders again. Nothing was read."
            ]
        )


class TablesUnknown(SettingsError):
    """There are orders of which dlt knows nothing."""

    def __init__(self, *, table: str) -> None:
        super().__init__(
            [
                f"{table} holds rows, and nothing in dlt's own tables beside it tells of them: it is of "
                "somebody else, or a copy without _dlt_version and _dlt_pipeline_state. Drop it with its "
                "child tables, and the next run reads all orders; or set another "
                "pipelines.orders.dataset_name. Nothing was read."
            ]
        )


class SpanRefused(OrdersError):
    """A span of time that was given by hand, and cannot be meant."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"The range cannot be read: {reason}. Nothing was read.")


class NoRecords(SettingsError):
    """There is no Dagster instance to read from."""

    def __init__(self) -> None:
        super().__init__(
            [
                "DAGSTER_HOME does not lead to Dagster's records: it has to be set, to the absolute path "
                "of a folder that exists. In a checkout that is DAGSTER_HOME=$PWD/.dagster_home, which "
                "make sets by itself."
            ]
        )


class ApiUnavailable(OrdersError):
    """The API failed again after the last retry."""

    def __init__(self, *, url: str, reason: str, attempts: int) -> None:
        self.url = url
        super().__init__(
            f"{url} failed {attempts} time{'s' if attempts != 1 else ''} in a row ({reason}). "
            f"{NOTHING_LOADED}"
        )


class PagesDisagree(OrdersError):
    """The pages hold fewer orders than the API says there are."""

    def __init__(self, *, url: str, seen: int, total: int, attempts: int) -> None:
        super().__init__(
            f"{url} reports {total:,} orders, but its pages held {seen:,}"
            f"{f', {attempts} times over' if attempts > 1 else ''}. {NOTHING_LOADED} If the API does not "
            "keep to the sort, correct it in sources.orders.params; if it counts something else, set "
            "sources.orders.total_path to the path of the right number, "
            'or to "" for an API that reports none.'
        )


class WarehouseBusy(OrdersError):
    """Another process held the warehouse for longer than the wait that is set."""

    def __init__(self, *, holder: str, waited_seconds: float) -> None:
        self.holder = holder
        super().__init__(
            f"The warehouse is held by {holder}; waited {waited_seconds:.0f} s. {NOTHING_LOADED} "
            "Close it there, or raise sources.orders.warehouse_wait_seconds."
        )


class WarehouseChanged(OrdersError):
    """Somebody has changed the tables while the orders were read; to load them would hide that."""

    def __init__(self, changes: Sequence[str]) -> None:
        super().__init__(
            f"While the orders were read, {', '.join(changes)}. {NOTHING_LOADED} "
            "It reads again what is missing."
        )


class ColumnsAltered(OrdersError):
    """Somebody has given columns another type; values would be changed to fit them."""

    def __init__(self, columns: Sequence[tuple[str, str, str]]) -> None:
        found = "; ".join(f"{name} holds {there}, not {wanted}" for name, there, wanted in columns)
        super().__init__(
            f"Columns of the warehouse have another type than they were given: {found}. {NOTHING_LOADED} "
            "Set the type back, or drop the column: the next run then reads all orders and fills it."
        )


class WarehouseRefused(OrdersError):
    """The destination did not take the load. What it says is shown without the values it quotes."""

    def __init__(self, *, step: str, reason: BaseException) -> None:
        text = without_values(str(reason)).strip().partition("\n")[0]
        super().__init__(
            f"dlt failed to {step} the orders: {type(reason).__name__}: {text[:500]} "
            f"(values are not shown). {NOTHING_LOADED}"
        )


class DiskFull(OrdersError):
    """There is no room for dlt's working files, or for the warehouse if it is a file."""

    def __init__(self, *, step: str) -> None:
        super().__init__(
            f"The disk is full: there is no room to {step} the orders. Make room where the warehouse "
            f"and DLT_DATA_DIR are. {NOTHING_LOADED}"
        )


_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_FULL_TEXT = re.compile("|".join(re.escape(os.strerror(code)) for code in _FULL), re.IGNORECASE)


def is_disk_full(error: BaseException) -> bool:
    """Whether the operating system had no room, be it Python, Arrow or DuckDB that asked it."""
    return any(
        getattr(cause, "errno", None) in _FULL or _FULL_TEXT.search(str(cause))
        for cause in causes(error)
    )


def without_values(text: str) -> str:
    """A message of a library without what it quotes: values of orders, above all.

    From the first quotation mark to the last one, since a value may hold some itself.
    """
    # Behind the last "LINE", DuckDB repeats the statement, with quotation marks of its own.
    said, _, _ = text.rpartition("\n\nLINE ")
    return _QUOTED.sub("'…'", _NUMBER.sub(r"\1'…' cannot", said or text))


@contextmanager
def no_values_in_logs(*loggers: str) -> Iterator[None]:
    """What libraries log, without the parameters of addresses, which may be keys; errors and warnings also
    without what they quote, and without stacks."""

    def blank(record: logging.LogRecord) -> bool:
        try:
            text = record.getMessage()
        except Exception:  # its arguments do not fit; a handler would say so, with all of them
            return False
        text = _LOGIN.sub("//", _PARAMETERS.sub("", text))
        if record.levelno >= logging.WARNING:
            text = without_values(text)
            record.exc_info = record.exc_text = record.stack_info = None
        record.msg, record.args = text, None
        return True

    for logger in loggers:
        logging.getLogger(logger).addFilter(blank)
    try:
        yield
    finally:
        for logger in loggers:
            logging.getLogger(logger).removeFilter(blank)


# `?a=b&c=d` of an address, and the arguments that dlt lists behind one.
_PARAMETERS = re.compile(r"\?\S*| with params=.*", re.DOTALL)
_LOGIN = re.compile(r"//[^/\s]*@")
_NUMBER = re.compile(r"\b(value )\S+ can't\b")  # that DuckDB shows without quotation marks
_QUOTED = re.compile("""(['"]).*(['"])|(['"]).*""", re.DOTALL)


def causes(error: BaseException) -> Iterator[BaseException]:
    """The error and what it was raised from, outermost first. dlt wraps errors several times."""
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        yield current
        current = current.__cause__ or current.__context__


def orders_error_in(error: BaseException) -> OrdersError | None:
    """The `OrdersError` inside an error that dlt wrapped, or None."""
    return next((cause for cause in causes(error) if isinstance(cause, OrdersError)), None)
