"""Write ``docs/command-line.md`` from the commands themselves: ``python docs/make_reference.py``."""

from __future__ import annotations

import inspect
from pathlib import Path

import click

from fink_dask.cli.command import FinkCommand
from fink_dask.cli.main import cli

REFERENCE = Path(__file__).with_name("command-line.md")

_HEAD = """\
# Command line

Made from the code by `docs/make_reference.py`; do not edit.

Every option can be written with two dashes or one, and with underscores for its inner dashes. Topic and directory may
stand with their option or without it. One with a variable can also be set in the environment: `--batchsize 500` is
`FINK_DASK_BATCHSIZE=500`, and a flag is switched on with `1`; the others must be typed each time, and a variable of
their name is refused where they are not. A variable of a repeatable option has a value a line. A `~` in front of a
path is the home, wherever it is written. `--json` prints one object on every way out, with `command`, `state` and
`error`. A file for `--config` has the same names without dashes in front. Commands can share it:
each takes what it has an option for, and a name that no command knows is refused.
"""


def reference() -> str:
    """Describe all commands in Markdown."""
    parts = [_HEAD]
    for name, command in sorted(cli.commands.items()):
        context = click.Context(command, info_name=f"fink-dask {name}", **command.context_settings)
        usage = " ".join([context.command_path, *command.collect_usage_pieces(context)])
        parts.append(f"## fink-dask {name}\n\n{inspect.cleandoc(command.help or '')}\n\nUsage: `{usage}`\n")
        for group, options in _groups(command, context).items():
            title = "" if group == "Options" else f"{group}:\n\n"
            rows = [_row(option, record) for option in options if (record := option.get_help_record(context))]
            parts.append(title + "\n".join(["| option | variable | does |", "| --- | --- | --- |", *rows]) + "\n")
    return "\n".join(parts)


def _groups(command: click.Command, context: click.Context) -> dict[str, list[click.Option]]:
    if isinstance(command, FinkCommand):
        return command.groups(context)
    return {"Options": [each for each in command.get_params(context) if isinstance(each, click.Option)]}


def _row(option: click.Option, record: tuple[str, str]) -> str:
    variable = f"`{option.envvar}`" if option.envvar else ""
    return f"| `{_cell(record[0])}` | {variable} | {_cell(record[1])} |"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


if __name__ == "__main__":
    REFERENCE.write_text(reference(), encoding="utf-8")
