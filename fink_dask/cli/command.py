"""Options as Fink's users know them, with one dash or two, dashes or underscores; and what several commands share.

That is options, how Kafka is reached, where the log goes, and what commands on an existing dataset first ask its
ledger. Secrets never come from the command line.
"""

from __future__ import annotations

import logging
import os
import re
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.core import ParameterSource
from click.shell_completion import CompletionItem

from fink_dask.cli.output import UNSET, ask_for_json, say
from fink_dask.cli.spelling import spelled_out
from fink_dask.errors import FinkDaskError, SettingsError, parameter, variable
from fink_dask.errors import option as option_words
from fink_dask.kafka.credentials import find_kafka
from fink_dask.kafka.topics import survey_of
from fink_dask.settings import (
    DASHBOARD_ADDRESS,
    GROUPS,
    OTHER,
    Connection,
    KafkaSettings,
    Option,
    options_of,
    parse_address,
    parse_names,
)
from fink_dask.store.location import check_is_local, expand, locate

if TYPE_CHECKING:
    from fink_dask.ledger.ledger import Ledger


Command = TypeVar("Command", bound=Callable[..., Any])


#: Option names are the same with underscores, as in ``--dump_schemas``.
CONTEXT = {
    "help_option_names": ["-h", "--help"],
    "token_normalize_func": lambda name: name.replace("_", "-"),
    "max_content_width": 100,
}


#: The settings file, in a context's `meta`.
_CONFIG = "config"
#: With more options, ``--help`` has them in groups.
_FEW = 20
#: The words of an example, and the most characters of a line of it: two come before it, and a backslash after it.
_WORDS, _EXAMPLE_CHARS = re.compile(r"(?:'[^']*'|\S)+"), 73


class Place(click.ParamType):  # type: ignore[type-arg]
    """Where a dataset is: a directory, or ``s3://BUCKET/NAME`` where that works too."""

    name = "path"

    def __init__(self, what: str | None = None) -> None:
        # The command, if it works with a directory only.
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


class UserPath(click.Path):
    """A path, with a ``~`` in front that no shell has replaced: of ``--output=~/x``, a variable, or a file."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Take what was typed."""
        try:
            value = str(expand(os.fspath(value)))
        except SettingsError as error:
            self.fail(str(error), param, ctx)
        return super().convert(value, param, ctx)


class Lines(click.types.StringParamType):
    """A text of a repeatable option, of which a variable has one a line: such texts have spaces in them."""

    envvar_list_splitter = "\n"


class FinkOption(click.Option):
    """An option that is also accepted with one dash, and read from ``FINK_DASK_NAME`` in the environment."""

    def __init__(
        self, declarations: list[str], *args: Any, group: str = OTHER, is_typed: bool = False, **kwargs: Any
    ) -> None:
        long_names = [name for name in declarations if name.startswith("--")]
        shown = long_names[0].lstrip("-")
        self.group = group
        self.given_name = shown.replace("-", "_")
        self.is_typed = is_typed
        kwargs["envvar"] = None if is_typed else variable(self.given_name)
        super().__init__([*declarations, *(name[1:] for name in long_names)], *args, **kwargs)
        self._shown = [long_names[0], *(name for name in declarations if len(name) == 2)]

    def get_error_hint(self, ctx: click.Context | None) -> str:
        """Name the option in an error by its two-dash name alone, and where its value is from if it was not typed."""
        source = None if ctx is None else ctx.get_parameter_source(self.name or "")
        place = {ParameterSource.ENVIRONMENT: self.envvar, ParameterSource.DEFAULT_MAP: "in the file of --config"}
        return f"'{self._shown[0]}'" + (f" ({place[source]})" if source in place else "")

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        """Describe the option by its two-dash name alone."""
        everything, self.opts = self.opts, self._shown
        try:
            return super().get_help_record(ctx)
        finally:
            self.opts = everything


def epilog_of(example: str) -> str:
    """Fold the example of a command into lines that fit a terminal and can still be copied."""
    lines = [""]
    for word in _WORDS.findall(f"Example: {example}"):
        if len(lines[-1]) + len(word) > _EXAMPLE_CHARS:
            lines[-1] += "" if lines[-1].endswith((",", ":", " or")) else " \\"
            lines.append("   ")
        lines[-1] += f" {word}" if lines[-1] else word
    return "\n".join(["\b", *lines])


class FinkCommand(click.Command):
    """A command whose ``--help`` has its options in groups, and that takes them as they are typed."""

    def __init__(self, *args: Any, bare: tuple[str, ...] = (), **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # The options that words without one stand for, in this order.
        self.bare = bare

    def collect_usage_pieces(self, ctx: click.Context) -> list[str]:
        """Say what may be typed."""
        return [*super().collect_usage_pieces(ctx), *(f"[{name.upper()}]" for name in self.bare)]

    def groups(self, ctx: click.Context) -> dict[str, list[click.Option]]:
        """List the options of each group that has any; one group if most have none of their own."""
        shown = [each for each in self.get_params(ctx) if isinstance(each, click.Option) and not each.hidden]
        found = {group: [each for each in shown if getattr(each, "group", OTHER) == group] for group in GROUPS}
        found = {group: options for group, options in found.items() if options}
        return found if len(shown) > _FEW else {"Options": shown}

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write each group under its heading."""
        for group, options in self.groups(ctx).items():
            records = [option.get_help_record(ctx) for option in options]
            with formatter.section(group):
                formatter.write_dl([record for record in records if record is not None])

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read the options."""
        with _spelled(ctx):
            rest = super().parse_args(ctx, spelled_out(ctx, args, self.bare))
        self._check_variables(ctx)
        return rest

    def _check_variables(self, ctx: click.Context) -> None:
        """Refuse a variable of an option that must be typed: whoever has set FINK_DASK_DRY_RUN does not want it real.

        What is typed counts, as always. Raises click.UsageError if there is one that is not.
        """
        for each in self.params:
            if not isinstance(each, FinkOption) or not each.is_typed:
                continue
            if ctx.get_parameter_source(str(each.name)) is ParameterSource.COMMANDLINE:
                continue
            name = variable(each.given_name)
            if os.environ.get(name, "").lower() not in UNSET:
                raise click.UsageError(f"{name} is set, but {each._shown[0]} must be typed: unset the variable")

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        with _spelled(ctx):
            return super().invoke(ctx)


def command(example: str, cls: type[FinkCommand] = FinkCommand, **kwargs: Any) -> Callable[..., FinkCommand]:
    """Declare a command, with an example of it."""
    return click.command(cls=cls, context_settings=CONTEXT, epilog=epilog_of(example), **kwargs)


@contextmanager
def _spelled(ctx: click.Context) -> Iterator[None]:
    """Let errors name what came from the environment or a file as it stands there."""
    names = {each.given_name: str(each.name) for each in ctx.command.params if isinstance(each, FinkOption)}

    def spell(name: str, value: str) -> str:
        source = ctx.get_parameter_source(names.get(name, name))
        if not value and source is ParameterSource.ENVIRONMENT:
            return variable(name)
        if not value and source is ParameterSource.DEFAULT_MAP:
            return f"{name} in {ctx.meta[_CONFIG]}"
        return option_words(name, value)

    try:
        yield
    except FinkDaskError as error:
        error.spell(spell)
        raise


def typed_option(*declarations: str, **kwargs: Any) -> Callable[[Command], Command]:
    """Declare a `FinkOption` that must be typed each time, as no environment and no file may replace data."""
    return option(*declarations, is_typed=True, **kwargs)


def option(*declarations: str, **kwargs: Any) -> Callable[[Command], Command]:
    """Declare a `FinkOption`."""
    return click.option(*declarations, cls=FinkOption, **kwargs)


def declare_all(command: Command, options: Sequence[Callable[[Command], Command]]) -> Command:
    """Declare several options, which ``--help`` shows in this order."""
    for declare in reversed(options):
        command = declare(command)
    return command


def _options_by_name(command: click.Command) -> dict[str, FinkOption]:
    """List what a settings file may hold, and what must be typed, by every name without its dashes."""
    options = [each for each in command.params if isinstance(each, FinkOption) and each.given_name != "config"]
    return {name.lstrip("-").replace("-", "_"): each for each in options for name in each.opts}


def _read_config(ctx: click.Context, _: click.Parameter, path: Path | None) -> Path | None:
    """Take the options of a TOML file as defaults."""
    if path is None:
        return None
    # Most commands need none of these, as others below what they import themselves.
    import tomllib
    from difflib import get_close_matches

    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise click.BadParameter(f"can't read {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise click.BadParameter(f"{path} is not valid TOML: {error}") from error
    ctx.meta[_CONFIG] = path
    known, elsewhere = _options_by_name(ctx.command), set()
    commands = getattr(ctx.find_root().command, "commands", {}).values()
    for command in commands:
        elsewhere |= {name for name, each in _options_by_name(command).items() if each.envvar is not None}
    defaults = {}
    for name, value in content.items():
        parameter = known.get(name.replace("-", "_"))
        if (parameter is None or parameter.envvar is None) and name.replace("-", "_") in elsewhere:
            continue  # another command's: they share a file
        if parameter is None:
            near = get_close_matches(name.replace("-", "_"), [*known, *elsewhere], 1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise click.BadParameter(f"{path}: there is no option {name!r}{hint}")
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


def _condition(text: str) -> str:
    from fink_dask.where.language import parse_condition

    try:
        parse_condition(text)
    except SettingsError as error:
        raise SettingsError(f"{parameter('where')}: {error.line}") from error
    return text


def _wait_for_stores(seconds: float) -> float:
    """Let an object store be waited for as long as Kafka; a command may need one without Kafka."""
    from fink_dask.store.bucket import wait_for_stores

    wait_for_stores(seconds)
    return seconds


#: What the command line does at once with a value, before the command begins.
_CHECKS: dict[str, Callable[[Any], Any]] = {"where": _condition, "reconnect_timeout_s": _wait_for_stores}


def _address(_: click.Context, parameter: click.Parameter, value: str) -> str:
    return parse_address(parameter.opts[0], value)


config_option = option(
    "--config",
    type=UserPath(dir_okay=False, path_type=Path),
    is_eager=True,
    expose_value=False,
    callback=_read_config,
    help="TOML file with these options; options that are typed, and FINK_DASK_… variables, take precedence over it.",
)


def offering(values: Callable[[], Iterable[str]]) -> Callable[..., list[str]]:
    """Return what lets a shell complete the values of an option, several of them separated by commas."""

    def complete(_: click.Context, __: click.Parameter, typed: str) -> list[str]:
        before, comma, begun = typed.rpartition(",")
        found = [value for value in values() if value.lower().startswith(begun.lower())]
        return [f"{before}{comma}{value}" for value in found if value not in before.split(",")]

    return complete


def options_from(kind: type, *names: str) -> Callable[[Command], Command]:
    """Declare what users can give of a settings class, or some of it; a command gets it by the names of the fields."""
    made = [_made(field, *found) for field, found in options_of(kind).items() if not names or field in names]
    return lambda command: declare_all(command, made)


def take(kind: type, values: dict[str, Any]) -> dict[str, Any]:
    """Take out of a command's values what was declared by `options_from`."""
    return {name: values.pop(name) for name in options_of(kind) if name in values}


def _made(field: str, given: Option, default: Any) -> Callable[[Command], Command]:
    spelled = f"--{given.name.replace('_', '-')}"
    kind: Any = str
    if given.is_flag:
        kind = None  # click's own: its oldest version takes a flag of a given type for one that is not there
    elif given.choices:
        kind = click.Choice(given.choices, case_sensitive=given.choices[0].islower())
    elif given.is_file:
        kind = UserPath(dir_okay=False, path_type=Path)
    elif given.is_repeatable:
        kind = Lines()
    elif given.is_number or isinstance(default, int):
        kind = int

    def take_value(_: click.Context, parameter_: click.Parameter, value: Any) -> Any:
        if value is None or given.is_flag or given.choices or given.is_file:
            return value
        if given.is_number:
            return at_least_one(_, parameter_, value)
        text = value if given.is_repeatable else str(value)
        taken = value if given.parse is None else given.parse(parameter(given.name), text)
        return _CHECKS[field](taken) if field in _CHECKS else taken

    return option(
        spelled,
        *given.others,
        field,
        group=given.group,
        is_typed=given.is_typed,
        type=kind,
        is_flag=given.is_flag,
        multiple=given.is_repeatable,
        default=default,
        show_default=default is not None and "[default:" not in given.help and not given.is_flag,
        callback=take_value,
        shell_complete=offering(lambda: given.suggested) if given.suggested else None,
        metavar=given.metavar,
        help=given.help,
    )


dashboard_address_option = option(
    "--dashboard-address",
    default=DASHBOARD_ADDRESS,
    show_default=True,
    callback=_address,
    metavar="HOST:PORT",
    help="Address of the Dask dashboard; another free port if this one is taken.",
)

json_option = option(
    "--json", "as_json", is_flag=True, callback=ask_for_json, help="Print the result as one JSON object."
)

unique_option = typed_option(
    "--unique",
    is_flag=True,
    help="Each alert once, by candid or diaSourceId, where several topics have it, or Fink has sent it again.",
)


def columns_option(words: str) -> Callable[[Command], Command]:
    """Declare the columns to write, which a command says in its own words."""
    return typed_option(
        "--columns",
        callback=lambda _, __, value: None if value is None else parse_names(parameter("columns"), value),
        metavar="NAME,…",
        help=words,
    )


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

    Raises LedgerError if there is no ledger, or it is damaged.
    """
    from fink_dask.ledger.outdir import check_dataset

    check_dataset(ledger)
    identity = ledger.begun_with()
    return identity.survey or survey_of(identity.topic)


#: Holds the password. There is no option for it: everybody on the machine can see the arguments of processes.
PASSWORD_VARIABLE = variable("password")

#: What only commands need that read much.
_LINE = ("reconnect_timeout_s", "limit_rate")

#: For `kafka_settings`, which gets them as keywords; the second ones for commands that read much from Kafka.
connection_options = options_from(Connection, *(name for name in options_of(Connection) if name not in _LINE))
line_options = options_from(Connection, *_LINE)


def kafka_settings(survey: str | None, **options: Any) -> KafkaSettings:
    """Find out how to reach Kafka, from `connection_options`, `line_options`, environment and credentials file.

    Raises SettingsError if something is missing, or a file can't be used.
    """
    # The processes that are started from here do not need it.
    _Secret.password = os.environ.pop(PASSWORD_VARIABLE, _Secret.password)
    return find_kafka(survey, _warn, Connection(password=_Secret.password, **options))


def typed_connection(connection: Mapping[str, Any]) -> str:
    """Spell again what was typed of `connection_options`, for a next command that has to be told as well."""
    ctx, words = click.get_current_context(), [""]
    for each in ctx.command.params:
        name = str(each.name)
        if name in connection and ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            words += [each.opts[0], shlex.quote(str(connection[name]))]
    return " ".join(words)


class _Secret:
    """What was in the environment when it was first asked for."""

    password: str | None = None


def _warn(words: str) -> None:
    say(f"{click.style('fink-dask: warning:', fg='yellow')} {words}", err=True)
