"""The command ``fink-dask``: what a user types, and how every command ends."""

from __future__ import annotations

import atexit
import gc
import importlib
import io
import logging
import os
import sys
from collections.abc import Iterator, MutableMapping, Sequence
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem

import fink_dask
import fink_dask.cli.completion  # what it declares, shells ask for before there is any command
from fink_dask.cli.command import CONTEXT, epilog_of
from fink_dask.cli.output import begin, fold, print_failure, say
from fink_dask.cli.spelling import COMMAND_HABITS, spelled_out
from fink_dask.cli.stopped import SignalReceivedError, handle_signals
from fink_dask.errors import FinkDaskError, SettingsError, bug_of, one_line

#: In the order in which a newcomer needs them, each with as much as the list of commands has room for. A command is a
#: function of its name, in a file of that name.
COMMANDS = {
    "demo": "Show the whole path on a made-up night; needs no Kafka.",
    "register": "Save servers, user name and password for all commands.",
    "doctor": "Check this machine and Kafka, and say what to put right.",
    "topics": "List Fink's topics and how long Kafka will keep them.",
    "schema": "Show the fields of a topic's alerts.",
    "peek": "Show a few alerts of a topic.",
    "transfer": "Move a topic into a Parquet dataset, exactly once.",
    "submit": "Run a whole transfer as a job of a batch system.",
    "status": "Show how far a transfer has got.",
    "verify": "Prove that a dataset is complete and undamaged.",
    "repair": "Fetch again what verify finds missing or damaged.",
    "quarantine": "Show records that could not be decoded, and retry them.",
    "read": "Print the lines of Python that open a dataset.",
    "report": "Show a dataset on one HTML page.",
    "lightcurve": "Show all that is known of an object's brightness.",
    "cutouts": "Write the cutouts of chosen objects as pictures or FITS.",
    "export": "Write alerts as one table: FITS, VOTable, CSV or Parquet.",
    "export-hats": "Write a dataset's objects as a HATS catalog, for LSDB.",
    "compact": "Rewrite a dataset as a few large files.",
    "hand-over": "Move files elsewhere while a transfer goes on.",
    "season": "Let every reader open the datasets of several topics.",
    "example": "Write an example, such as a notebook with a light curve.",
    "publish": "Fill a topic as Fink does, for tests and demonstrations.",
    "completion": "Complete commands and options with Tab in your shell.",
}

#: Those that leave nothing behind where they are stopped.
_LOOKING = frozenset({"doctor", "topics", "schema", "peek", "status", "verify", "read"})


class _Commands(MutableMapping[str, click.Command]):
    """The commands by name, each loaded when it is asked for: all together take as long as everything else."""

    def __init__(self) -> None:
        self._loaded: dict[str, click.Command | None] = dict.fromkeys(COMMANDS)

    def __getitem__(self, name: str) -> click.Command:
        if (command := self._loaded[name]) is None:
            function = name.replace("-", "_")
            command = getattr(importlib.import_module(f"fink_dask.cli.{function}"), function)
            assert isinstance(command, click.Command)
            command.short_help = COMMANDS[name]
            self._loaded[name] = command
        return command

    def __setitem__(self, name: str, command: click.Command) -> None:
        self._loaded[name] = command

    def __delitem__(self, name: str) -> None:
        del self._loaded[name]

    def __contains__(self, name: object) -> bool:
        return name in self._loaded

    def __iter__(self) -> Iterator[str]:
        return iter(self._loaded)

    def __len__(self) -> int:
        return len(self._loaded)


class _Program(click.Group):
    """The commands in their order, where click would sort them and load each, and their end by a signal."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read what stands before the command."""
        return super().parse_args(ctx, spelled_out(ctx, args))

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command; one of Fink's own client is answered with today's word."""
        habit = args[0].replace("_", "-").removeprefix("fink-")
        if habit in COMMAND_HABITS and habit not in self.commands:
            raise click.UsageError(f"no command {args[0]}; type {COMMAND_HABITS[habit]}", ctx)
        return super().resolve_command(ctx, args)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write what each does."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem[Any]]:
        """Complete the name of a command, or an option that stands before it."""
        found = [CompletionItem(name, help=words) for name, words in COMMANDS.items() if name.startswith(incomplete)]
        return [*found, *click.Command.shell_complete(self, ctx, incomplete)]

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except SignalReceivedError as received:  # click would add an empty line to what a command said
            raise click.exceptions.Exit(_stop(received)) from received


@click.group(
    cls=_Program,
    commands=_Commands(),
    context_settings=CONTEXT,
    epilog=epilog_of("fink-dask transfer --topic ftransfer_ztf_2026-02-24_123456 --outdir alerts --partitionby time"),
)
@click.version_option(fink_dask.__version__, "--version", "-version", prog_name="fink-dask")
def cli() -> None:
    """Move Kafka topics of Fink alerts into complete, partitioned Parquet datasets, with Dask."""


#: How Dask, when it is first imported, begins to say that a file of the user's configuration is malformed.
_DASK_CONFIG = "A dask config file"


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command and exit with its status; every failure is one line on stderr."""
    typed = sys.argv[1:] if arguments is None else arguments
    command = next((word for word in typed if word in cli.commands), None)
    handle_signals(looks=command in _LOOKING)
    begin(command, typed)
    # Where a terminal does not use UTF-8, characters that it lacks are written as escapes.
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors in {"strict", "surrogateescape"}:
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        _check_directory()
        code = cli.main(arguments, prog_name="fink-dask", standalone_mode=False, color=_colour())
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        code = error.exit_code
    except click.ClickException as error:
        code = _fail(" ".join(error.format_message().split()).rstrip(".") + _usage(error), error.exit_code)
    except click.Abort as error:  # click's name for a KeyboardInterrupt, and for a "no" at its prompt
        received = _signal_behind(error)
        if received is not None:
            code = _stop(received)
        elif isinstance(error.__cause__, EOFError):  # out of a pipe, in the middle of something
            code = _fail_unexpectedly(error.__cause__, arguments)
        else:
            code = _fail("nothing was changed", 1)
    except FinkDaskError as error:
        code = _fail(str(error), error.exit_code)
    except OSError as error:  # such as a name that is too long, or an output that is full
        what = f": {str(error.filename)[:200]}" if error.filename else ""
        code = _fail(f"{error.strerror or error}{what}", 1)
    except Exception as error:
        received = _signal_behind(error)
        code = _fail_unexpectedly(error, arguments) if received is None else _stop(received)
    # All memory is freed at exit anyway: looking for cycles in it first takes longer than many a command.
    gc.freeze()
    sys.exit(code if isinstance(code, int) else 0)


def _check_directory() -> None:
    """Say which directory is gone, of which the error of whatever asks for it first says nothing."""
    try:
        Path.cwd()
    except OSError as error:
        raise SettingsError("the working directory is gone, or can't be read: change to another one") from error


def _colour() -> bool | None:
    """Tell click not to use colours; None lets it find out whether there is a terminal. https://no-color.org."""
    return False if os.environ.get("NO_COLOR") or os.environ.get("TERM") in {"dumb", "unknown"} else None


def _signal_behind(error: BaseException) -> SignalReceivedError | None:
    """Return the signal that an error comes from: compiled code makes a SystemError of it, click's prompt an Abort."""
    seen: BaseException | None = error
    while seen is not None and not isinstance(seen, SignalReceivedError):
        seen = seen.__cause__ or (seen.__context__ if isinstance(seen, click.Abort) else None)
    return seen


def _stop(received: SignalReceivedError) -> int:
    if not received.said:
        safe = "" if received.looks else "; what is written is safe, and the same command may be run again"
        say(f"fink-dask: stopped{safe}", err=True)
    print_failure("stopped by a signal", "interrupted")
    _forget_clusters()
    return received.exit_code


def _forget_clusters() -> None:
    """Keep Dask from closing at exit what was starting when a signal came: it would fail, with a trace."""
    spec = sys.modules.get("distributed.deploy.spec")
    if spec is not None:
        atexit.unregister(spec.close_clusters)


def _fail_unexpectedly(error: Exception, arguments: Sequence[str] | None) -> int:
    if one_line(error).startswith(_DASK_CONFIG):
        return _fail(one_line(error), 2)
    # A bug: one line for the user, the trace for whoever looks for it.
    logging.getLogger(__name__).debug("unexpected error", exc_info=True)
    typed = sys.argv[1:] if arguments is None else arguments
    command = next((cli.commands[word] for word in typed if word in cli.commands), cli)
    hint = " (-v shows the way there)" if any(parameter.name == "verbose" for parameter in command.params) else ""
    return _fail(bug_of(error) + hint, 1)


def _usage(error: click.ClickException) -> str:
    """Say how a command is used whose arguments were not understood, as the error itself names only what is wrong."""
    if not isinstance(error, click.UsageError) or type(error) not in {click.UsageError, click.NoSuchOption}:
        return ""
    if error.ctx is None or isinstance(error.ctx.command, click.Group):
        return ""
    return f"; usage: {' '.join(error.ctx.get_usage().split()[1:])}"


def _fail(message: str, code: int) -> int:
    head = "fink-dask: error:"
    words = fold(f"{head} {message}", sys.stderr)
    click.echo(click.style(head, fg="red") + words.removeprefix(head), err=True, color=_colour())
    print_failure(message)
    return code
