"""Where one contender keeps its files: a warehouse, a working directory of dlt, nothing inherited."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from orders_dagster.local import sandbox_settings

CHECKOUT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Place:
    """A directory with all that one contender writes."""

    directory: Path

    @classmethod
    def new(cls, directory: Path) -> Place:
        """An empty one."""
        for folder in ("temporary", "no-configuration"):
            (directory / folder).mkdir(parents=True)
        return cls(directory)

    @property
    def warehouse(self) -> Path:
        return self.directory / "orders.duckdb"

    def environment(self, url: str, settings: Mapping[str, str]) -> dict[str, str]:
        """The same for every contender; none sees the configuration of this machine."""
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(self.directory),
            "TMPDIR": str(self.directory / "temporary"),
            "PYTHONPATH": str(CHECKOUT),
            "DLT_PROJECT_DIR": str(self.directory / "no-configuration"),
            "DLT_DATA_DIR": str(self.directory / "dlt"),
            "DESTINATION__DUCKDB__CREDENTIALS": str(self.warehouse),
            "RUNTIME__DLTHUB_TELEMETRY": "false",
            "RUNTIME__LOG_LEVEL": "WARNING",
            **sandbox_settings(url),
            **settings,
        }

    def copy_to(self, directory: Path) -> Place:
        """A copy, and on the disk: a contender that syncs its own writes must not wait for these."""
        shutil.copytree(self.directory, directory)
        for path in directory.rglob("*"):
            if path.is_file():
                with path.open("rb") as file:
                    os.fsync(file.fileno())
        return Place(directory)

    def remove(self) -> None:
        shutil.rmtree(self.directory)
