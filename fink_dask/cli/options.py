"""Options as Fink's users know them, with one dash or two, dashes or underscores; and what several commands share.

That is options, where the log goes, and what commands on an existing dataset first ask its ledger.
"""

from __future__ import annotations

import logging
import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.shell_completion import CompletionItem

from fink_dask.errors import SettingsError
from fink_dask.kafka.topics import survey_of
from fink_dask.settings import DASHBOARD_ADDRESS, parse_address
from fink_dask.store.location import check_is_local, locate
from fink_dask.where.language import parse_condition

if TYPE_CHECKING:
    from fink_dask.ledger.ledger import Ledger


Command = TypeVar("Command", bound=Callable[..., Any])


#: Option names are the same with underscores, as in ``--dump_schemas``.
CONTEXT = {
    "help_option_names": ["-h", "--help"],
    "token_normalize_func": lambda name: name.replace("_", "-"),
    "max_content_width": 100,
}


class Place(click.ParamType):  # type: ignore[type-arg]
    """Where a dataset is: a directory, or ``s3://BUCKET/NAME`` where that works too.

    Parameters
    ----------
    what : str, optional
        The command, if it works with a directory only.
    """

    name = "path"

    def __init__(self, what: str | None = None) -> None:
        self._what = what

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        """Take what was typed."""
        try:
            place = locate(value)
            if self._what is not None:
                check_is_local(place, self._what)
        except SettingsError as error:
            self.fail(str(error), param, ctx)
        return place

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem[Any]]:
        """Let the shell complete directories."""
        return [CompletionItem(incomplete, type="dir")]


class FinkOption(click.Option):
    """An option that is also accepted with one dash, and read from ``FINK_DASK_NAME`` in the environment."""

    def __init__(self, declarations: list[str], *args: Any, **kwargs: Any) -> None:
        long_names = [name for name in declarations if name.startswith("--")]
        shown = long_names[0].lstrip("-")
        kwargs.setdefault("envvar", f"FINK_DASK_{shown.replace('-', '_').upper()}")
        super().__init__([*declarations, *(name[1:] for name in long_names)], *args, **kwargs)
        self._shown = [long_names[0], *(name for name in declarations if len(name) == 2)]

    def get_error_hint(self, ctx: click.Context | None) -> str:
        """Name the option in an error by its two-dash name alone."""
        return f"'{self._shown[0]}'"

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        """Describe the option by its two-dash name alone."""
        everything, self.opts = self.opts, self._shown
        try:
            return super().get_help_record(ctx)
        finally:
            self.opts = everything


def typed_option(*declarations: str, **kwargs: Any) -> Callable[[Command], Command]:
    """Declare a `FinkOption` that must be typed each time, as no environment and no file may replace data."""
    return option(*declarations, envvar=None, **kwargs)


def option(*declarations: str, **kwargs: Any) -> Callable[[Command], Command]:
    """Declare a `FinkOption`."""
    return click.option(*declarations, cls=FinkOption, **kwargs)


def declare_all(command: Command, options: Sequence[Callable[[Command], Command]]) -> Command:
    """Declare several options, which ``--help`` shows in this order."""
    for declare in reversed(options):
        command = declare(command)
    return command


def _read_config(ctx: click.Context, _: click.Parameter, path: Path | None) -> Path | None:
    """Take the options of a TOML file as defaults."""
    if path is None:
        return None
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise click.BadParameter(f"can't read {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise click.BadParameter(f"{path} is not valid TOML: {error}") from error
    known = {
        name.lstrip("-").replace("-", "_"): parameter for parameter in ctx.command.params for name in parameter.opts
    }
    defaults = {}
    for name, value in content.items():
        parameter = known.get(name.replace("-", "_"))
        if parameter is None or parameter.name in {"config", None}:
            raise click.BadParameter(f"{path}: there is no option {name!r}")
        if parameter.envvar is None:
            raise click.BadParameter(f"{path}: {name} can't be set in a file, only typed")
        if parameter.multiple:
            value = value if isinstance(value, list) else [value]  # noqa: PLW2901 - the same value
            if not all(isinstance(each, str) for each in value):
                raise click.BadParameter(f"{path}: {name} should be a string, or a list of strings")
        elif isinstance(value, dict | list):
            raise click.BadParameter(f"{path}: {name} should be a single value")
        if isinstance(parameter.type, click.types.IntParamType) and type(value) is not int:
            raise click.BadParameter(f"{path}: {name} should be a whole number")
        defaults[str(parameter.name)] = value
    ctx.default_map = {**(ctx.default_map or {}), **defaults}
    return path


def at_least_one(_: click.Context, parameter: click.Parameter, value: int | None) -> int | None:
    """Refuse numbers below 1."""
    if value is not None and value < 1:
        raise click.BadParameter("must be at least 1", param=parameter)
    return value


def _consumers(_: click.Context, parameter: click.Parameter, value: int) -> int:
    if value < 1 and value != -1:
        raise click.BadParameter("must be at least 1, or -1 for the cores that this process may use", param=parameter)
    return value


def _columns(_: click.Context, parameter: click.Parameter, value: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in value.split(","))
    if names == ("none",):
        return ()
    if not all(names) or len(set(names)) < len(names):
        raise click.BadParameter(f"{value!r} should be names separated by commas, each once", param=parameter)
    return names


def parse_names(_: click.Context, parameter: click.Parameter, value: str | None) -> tuple[str, ...] | None:
    """Read names separated by commas, repeats dropped; the callback of options that select columns."""
    if value is None:
        return None
    names = tuple(name.strip() for name in value.split(","))
    if not all(names):
        raise click.BadParameter(f"{value!r} should be names separated by commas", param=parameter)
    return tuple(dict.fromkeys(names))


def _condition(_: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    if value is not None:
        try:
            parse_condition(value)
        except SettingsError as error:
            raise click.BadParameter(str(error), param=parameter) from error
    return value


def _address(_: click.Context, parameter: click.Parameter, value: str) -> str:
    return parse_address(parameter.opts[0], value)


config_option = option(
    "--config",
    type=click.Path(dir_okay=False, path_type=Path),
    is_eager=True,
    expose_value=False,
    callback=_read_config,
    help="TOML file with these options; options that are typed, and FINK_DASK_… variables, take precedence over it.",
)

nconsumers_option = option(
    "--nconsumers",
    type=int,
    default=-1,
    callback=_consumers,
    metavar="N",
    help="Ranges to consume at once.  [default: the cores that this process may use, those of all jobs, or the "
    "threads of all workers of --scheduler]",
)

partitionby_option = option(
    "--partitionby",
    default="none",
    show_default=True,
    callback=_columns,
    metavar="WHAT",
    help="Partition columns: time (year=YYYY/month=MM/day=DD), finkclass, tnsclass, classId, any column or dotted "
    "field, several separated by commas, or none.",
)

columns_option = option(
    "--columns",
    callback=parse_names,
    metavar="NAME,…",
    help="Take only these columns, or fields of structs such as candidate.jd; the others are not even decoded.",
)

where_option = option(
    "--where",
    callback=_condition,
    metavar="CONDITION",
    help="Take only alerts for which this is true, such as 'candidate.magpsf < 18 and finkclass == \"SN candidate\"'; "
    "the others are counted.",
)

dashboard_address_option = option(
    "--dashboard-address",
    default=DASHBOARD_ADDRESS,
    show_default=True,
    callback=_address,
    metavar="HOST:PORT",
    help="Address of the Dask dashboard; another free port if this one is taken.",
)

json_option = option("--json", "as_json", is_flag=True, help="Print the result as one JSON object.")

verbose_option = option("--verbose", "-v", is_flag=True, help="Write a log to stderr.")


def log_to_stderr(verbose: bool) -> None:
    """Show the log of this package on stderr when `verbose`; librdkafka's lines only then."""
    if not verbose:
        # The transfer itself says in one line what Dask and its event loop would say of a scheduler that went away.
        for name in ("distributed", "distributed.client", "asyncio"):
            logging.getLogger(name).setLevel(logging.CRITICAL)
        return
    from rich.console import Console
    from rich.logging import RichHandler

    handler = RichHandler(console=Console(stderr=True), show_path=False, markup=False)
    logger = logging.getLogger("fink_dask")
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    logging.getLogger("fink_dask.kafka.librdkafka").setLevel(logging.INFO)


def survey_of_dataset(ledger: Ledger) -> str | None:
    """Find the survey, which says where to look up the Kafka servers.

    Raises
    ------
    LedgerError
        If there is no ledger, or it is damaged.
    """
    from fink_dask.ledger.outdir import check_dataset

    check_dataset(ledger)
    identity = ledger.plans()[0].identity
    return identity.survey or survey_of(identity.topic)
