"""Synchronisations that die on purpose, each in a process of its own, at a point that a test names.

Here: a zygote, which imports everything once and opens no warehouse, and forks a process for each
synchronisation; and the points at which such a process kills itself, or finds the disk full. A fork
costs milliseconds, an import of dlt seconds. No point is a matter of time: a process dies at the n-th
touch of a file, before, in or after a call of dlt or a statement of SQL, or in the middle of writing
the n-th byte of a file.

Only dlt is wrapped, and only to place a kill: the project runs as it is. A full disk is a file system
of its own (`disk`), or, where there may be none, a limit to the size of files (RLIMIT_FSIZE), which
needs no privileges: every write to a file fails, with another errno.
"""

from __future__ import annotations

import importlib
import json
import os
import re
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from functools import wraps
from pathlib import Path
from typing import Any

from orders_dagster_tests.world import talking

DISK_BYTES = 24 << 20
TOUCHES = frozenset({"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "shutil.rmtree"})


@dataclass(frozen=True)
class At:
    """Where a process kills itself, or finds the disk full.

    Attributes:
        call: a function of dlt, `module:Class.method`.
        sql: what the statements look like, a regular expression.
        touch: the files that are touched (see TOUCHES) look like this, a regular expression.
        when: before, after, or in the middle (of a statement).
        nth: the how manieth of them.
        byte: nowhere but where a file would grow beyond so many bytes: in the middle of a write.
        then: "kill"; "limit", no file can be written from here on; or the path of a file that fills
            the file system it is on.
    """

    call: str = ""
    sql: str = ""
    touch: str = ""
    when: str = "before"
    nth: int = 1
    byte: int | None = None
    then: str = "kill"


@dataclass(frozen=True)
class End:
    """How a process ended.

    Attributes:
        signal: what killed it, 0 if nothing did.
        error: the type of the error that the synchronisation ended with, and its message.
        lines: the progress that it logged.
        touched: how many touches of a file there were, in a process with `At(touch=…)`.
    """

    signal: int
    error: str = ""
    message: str = ""
    is_orders_error: bool = False
    lines: list[str] = field(default_factory=list)
    touched: list[str] = field(default_factory=list)


class Zygote:
    """Forks a process for every synchronisation, with the environment of the caller."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    @property
    def root(self) -> Path:
        """The root directory as the zygote sees it."""
        return Path(f"/proc/{self._process.pid}/root")

    def synchronise(self, at: At | None = None) -> End:
        """Run one synchronisation to its end, whatever that is."""
        task = {"environment": dict(os.environ), "at": asdict(at) if at else None}
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(task) + "\n")
        self._process.stdin.flush()
        return End(**json.loads(self._process.stdout.readline()))


@contextmanager
def zygote(disk: Path | None = None) -> Iterator[Zygote]:
    """Start a zygote.

    Args:
        disk: where it, and no other process, is to have a small file system. Needs `can_mount()`.
    """
    command = [sys.executable, "-m", __name__]
    if disk is not None:
        mount = f'mount -t tmpfs -o size={DISK_BYTES} tmpfs "$0" && exec "$@"'
        command = ["unshare", "-rm", "sh", "-c", mount, str(disk), *command]
    with talking(command, cwd=Path(__file__).resolve().parents[1]) as process:
        yield Zygote(process)


def can_mount() -> bool:
    """Whether this machine lets a process have file systems of its own."""
    try:
        command = ["unshare", "-rm", "mount", "-t", "tmpfs", "tmpfs", "/mnt"]
        return subprocess.run(command, capture_output=True).returncode == 0
    except OSError:
        return False


def _serve() -> None:
    """The zygote: a line with a task comes in, a line with its end goes out."""
    for module in (
        "dlt.destinations.impl.duckdb.duck",
        "dlt.load.load",
        "dlt.normalize.normalize",
        "dlt.common.libs.pyarrow",
        "orders_dagster.pipeline",
    ):
        importlib.import_module(module)
    _warm_up()
    for line in sys.stdin:
        reads, writes = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(reads)
            _die_or_live(json.loads(line), writes)
        os.close(writes)
        with os.fdopen(reads) as pipe:
            parts = [json.loads(text) for text in pipe if text.endswith("\n")]
        _, status = os.waitpid(pid, 0)
        end: dict[str, Any] = {"signal": os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0}
        for part in parts:
            for key, value in part.items():
                end[key] = [*end.get(key, []), *value] if isinstance(value, list) else value
        print(json.dumps(end), flush=True)


def _warm_up() -> None:
    """What dlt works out once for a process."""
    from orders_dagster.destination import inert_pipeline
    from orders_dagster.source import inert_source

    inert_source()
    inert_pipeline()


def _die_or_live(task: dict[str, Any], pipe: int) -> None:
    """The forked process. What it says goes through the pipe at once: it may not live to say it."""

    def say(**part: Any) -> None:
        os.write(pipe, json.dumps(part).encode() + b"\n")

    from orders_dagster.errors import OrdersError
    from orders_dagster.pipeline import synchronise
    from orders_dagster.settings import read_settings

    os.environ.clear()
    os.environ.update(task["environment"])
    os.dup2(2, 1)  # what dlt prints is no answer
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    if task["at"]:
        _place(At(**task["at"]), say)
    try:
        synchronise(read_settings(), lambda line: say(lines=[line]))
    except BaseException as error:
        say(
            error=type(error).__name__,
            message=str(error),
            is_orders_error=isinstance(error, OrdersError),
        )
    os._exit(0)


def _place(at: At, say: Callable[..., None]) -> None:
    if at.call:
        _wrap(at.call, lambda call: _Counted(at).around(call))
    if at.sql:
        _wrap(
            "dlt.destinations.impl.duckdb.sql_client:DuckDbSqlClient.execute_query",
            lambda call: _Statement(at).around(call),
        )
    if at.touch:
        _kill_at_touch(at, say)
    if at.byte is not None:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_FSIZE, (at.byte, resource.RLIM_INFINITY))
        # Python ignores it, so that a write fails; by default it ends the process in that write,
        # as abruptly as SIGKILL does.
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)


def _kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _act(at: At) -> None:
    """What happens at the point."""
    if at.then == "kill":
        _kill()
    if at.then == "limit":
        with open(os.devnull, "w") as nothing:  # output may go to a file, too
            os.dup2(nothing.fileno(), 1)
            os.dup2(nothing.fileno(), 2)
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
        return
    with open(at.then, "ab", buffering=0) as filler, suppress(OSError):
        while True:
            filler.write(bytes(4096))


def _wrap(where: str, wrapper: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
    module, _, path = where.partition(":")
    *parents, name = path.split(".")
    owner: Any = importlib.import_module(module)
    for parent in parents:
        owner = getattr(owner, parent)
    setattr(owner, name, wrapper(getattr(owner, name)))


class _Counted:
    """Acts before or after the n-th call."""

    def __init__(self, at: At) -> None:
        self._at = at
        self._seen = 0
        self._lock = threading.Lock()

    def is_it(self) -> bool:
        with self._lock:
            self._seen += 1
            return self._seen == self._at.nth

    def around(self, call: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(call)
        def counted(*args: Any, **kwargs: Any) -> Any:
            is_it = self.is_it()
            if is_it and self._at.when == "before":
                _act(self._at)
            result = call(*args, **kwargs)
            if is_it and self._at.when == "after":
                _act(self._at)
            return result

        return counted


class _Statement(_Counted):
    """Acts before, in the middle of, or after the n-th statement that looks like that."""

    def around(self, call: Callable[..., Any]) -> Callable[..., Any]:
        @contextmanager
        def counted(client: Any, query: Any, *args: Any, **kwargs: Any) -> Iterator[Any]:
            is_it = bool(re.search(self._at.sql, str(query), re.DOTALL)) and self.is_it()
            if is_it and self._at.when == "before":
                _act(self._at)
            if is_it and self._at.when == "during":
                _kill_in_native_code()
            with call(client, query, *args, **kwargs) as cursor:
                if is_it and self._at.when == "after":
                    _act(self._at)
                yield cursor

        return counted


def _kill_in_native_code() -> None:
    """From now on no thread gives way until it enters native code: there the killer has its turn."""
    ready, go = threading.Event(), threading.Event()

    def killer() -> None:
        ready.set()
        go.wait()
        _kill()

    threading.Thread(target=killer, daemon=True).start()
    ready.wait()
    sys.setswitchinterval(1000)
    go.set()


def _kill_at_touch(at: At, say: Callable[..., None]) -> None:
    seen = 0

    def hook(event: str, args: tuple[Any, ...]) -> None:
        nonlocal seen
        if event not in TOUCHES or not args or not isinstance(args[0], (str, os.PathLike)):
            return
        path = os.fspath(args[0])
        if re.search(at.touch, path):
            seen += 1
            say(touched=[f"{event} {path}"])
            if seen == at.nth:
                _act(at)

    sys.addaudithook(hook)


if __name__ == "__main__":
    _serve()
