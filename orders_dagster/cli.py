"""The command line, `orders-dagster`: what a person on call asks beside the Dagster page.

Commands are imported when they are called: `--help` is not to wait for Dagster.
"""

from __future__ import annotations

from importlib import import_module

import click

COMMANDS: dict[str, str] = {
    "alert-test": "alert_test",
    "doctor": "doctor.command",
    "report": "report.command",
}
"""The module of each command, which holds a click command named `command`."""


class _Commands(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:  # noqa: ARG002
        if name not in COMMANDS:
            return None
        command: click.Command = import_module(f"orders_dagster.{COMMANDS[name]}").command
        return command


EPILOG = """
\b
Examples:
  orders-dagster doctor
  orders-dagster report --format md
  orders-dagster alert-test

Exit code: 2 if the settings cannot be read; each command says more.
"""


@click.group(cls=_Commands, epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Orders of an e-commerce API in a warehouse: what to ask beside the Dagster page.

    Settings come from where the pipeline takes them: the environment, .dlt/secrets.toml and
    .dlt/config.toml.
    """


if __name__ == "__main__":
    main()
