"""``fink-dask completion``: what a shell needs to complete commands, options and directories."""

from __future__ import annotations

from typing import Any

import click
from click.shell_completion import (
    BashComplete,
    CompletionItem,
    FishComplete,
    ShellComplete,
    ZshComplete,
    add_completion_class,
    get_completion_class,
)

from fink_dask.cli.command import command
from fink_dask.errors import SettingsError

#: Tells the program that a shell asks; click's own name for it.
COMPLETE_VARIABLE = "_FINK_DASK_COMPLETE"


class _EachOptionOnce(ShellComplete):
    """Options have two names, with two dashes and with one: where both match what was typed, offer the first."""

    def get_completions(self, args: list[str], incomplete: str) -> list[CompletionItem[Any]]:
        """Find what fits."""
        found = super().get_completions(args, incomplete)
        names = {item.value for item in found}
        return [item for item in found if f"-{item.value}" not in names]


@add_completion_class
class _Bash(_EachOptionOnce, BashComplete):
    """Completion in bash."""


@add_completion_class
class _Zsh(_EachOptionOnce, ZshComplete):
    """Completion in zsh."""


@add_completion_class
class _Fish(_EachOptionOnce, FishComplete):
    """Completion in fish."""


@command("fink-dask completion fish > ~/.config/fish/completions/fink-dask.fish")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> int:
    """Print the script with which SHELL completes fink-dask; docs/commands.md says where to put it."""
    made = get_completion_class(shell)
    if made is None:  # a click without this shell
        raise SettingsError(f"this version of click can't complete in {shell}")
    root = click.get_current_context().find_root().command
    click.echo(made(root, {}, "fink-dask", COMPLETE_VARIABLE).source(), nl=False)
    return 0
