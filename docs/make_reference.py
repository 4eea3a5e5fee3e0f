"""Write ``docs/command-line.md`` from the commands themselves: ``python docs/make_reference.py``."""

from __future__ import annotations

import inspect
from pathlib import Path

import click

from fink_dask.cli.main import cli

REFERENCE = Path(__file__).with_name("command-line.md")

_HEAD = """\
# Command line

Made from the code by `docs/make_reference.py`; do not edit.

Every option can be written with two dashes or one, and with underscores for its inner dashes. It can also be set in the
environment: `--batchsize 500` is `FINK_DASK_BATCHSIZE=500`, and a flag is switched on with `1`. A file for `--config`
has the same names without dashes in front.
"""


def reference() -> str:
    """Describe all commands in Markdown."""
    parts = [_HEAD]
    for name, command in sorted(cli.commands.items()):
        context = click.Context(command, info_name=f"fink-dask {name}", **command.context_settings)
        usage = " ".join([context.command_path, *command.collect_usage_pieces(context)])
        parts.append(f"## fink-dask {name}\n\n{inspect.cleandoc(command.help or '')}\n\nUsage: `{usage}`\n")
        options = [parameter for parameter in command.get_params(context) if isinstance(parameter, click.Option)]
        records = [option.get_help_record(context) for option in options]
        rows = [f"| `{_cell(record[0])}` | {_cell(record[1])} |" for record in records if record is not None]
        parts.append("\n".join(["| option | does |", "| --- | --- |", *rows]) + "\n")
    return "\n".join(parts)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


if __name__ == "__main__":
    REFERENCE.write_text(reference(), encoding="utf-8")
