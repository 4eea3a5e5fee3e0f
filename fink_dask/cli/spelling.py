"""What people type, brought into the form that a command declares; and what there is not, named whole.

An argument may be given as an option, and the main options of a transfer as bare words. Habits of Fink's own client are
answered with today's word.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice

import click

from fink_dask.units import printable

#: Of more commands than these, an option that another one lacks tells nothing.
_FEW = 4
#: What the commands of Fink's own client take, and these do not; docs/moving-from-fink-client.md has the rest.
HABITS = {
    "available-topics": "fink-dask topics lists what is on Kafka",
    "display": "fink-dask peek TOPIC shows a few alerts",
    "display-statistics": "fink-dask topics says how many alerts there are",
    "ext-schema": "give --schema FILE",
    "f": "fink-dask peek TOPIC shows alerts of a topic, and fink-dask report OUTDIR those of a dataset",
    "groupid": "give --group-id NAME",
    "log-level": "give --verbose",
    "mytopics": "give fink-dask transfer --topic NAME",
    "name": "give --topic NAME",
    "password": "give --password-file FILE",
    "save": "leave it out: fink-dask transfer always writes files",
    "slack": "fink-dask sends no messages",
    "slack-channel": "fink-dask sends no messages",
    "slack-token": "fink-dask sends no messages",
    "start-at": "a new dataset begins with the first alert; --restart begins one again",
    "survey": "leave it out: the name of the topic tells the survey",
    "telegram": "fink-dask sends no messages",
    "telegram-channel": "fink-dask sends no messages",
    "telegram-token": "fink-dask sends no messages",
    "tmp": "give --bootstrap-servers HOST:PORT instead of a credentials file elsewhere",
}
#: The same of its commands.
COMMAND_HABITS = {
    "alert-viewer": "fink-dask peek TOPIC",
    "auth": "fink-dask register --survey ztf, and fink-dask register --survey ztf --check",
    "client-register": "fink-dask register",
    "consumer": "fink-dask transfer --follow",
    "datatransfer": "fink-dask transfer",
    "stream": "fink-dask transfer --follow",
    "topic": "fink-dask topics",
}


def spelled_out(ctx: click.Context, words: Iterable[str], bare: tuple[str, ...] = ()) -> list[str]:
    """Bring what was typed into the form that the command declares.

    `bare`: the options that words without one stand for, in this order, unless they are typed as options.
    Raises click.UsageError if there is no such option; it names what was typed, and what may be meant.
    """
    reader = _Reader(ctx)
    reader.read(iter(words))
    found = reader.options
    for name in bare:
        if reader.bare and f"--{name}" not in reader.seen:
            found += [f"--{name}", reader.bare.pop(0)]
    rest = reader.in_order()
    return [*found, *(["--"] if rest and reader.is_plain else []), *rest]


def _name_of(argument: click.Argument) -> str:
    """Return the name that help gives an argument, which is what it is called as an option."""
    return argument.human_readable_name.strip("[].").lower()


class _Reader:
    """Tells options, their values and bare words apart, as click will."""

    def __init__(self, ctx: click.Context) -> None:
        self._ctx = ctx
        parameters = ctx.command.get_params(ctx)
        known = [each for each in parameters if isinstance(each, click.Option)]
        self._known = {name: each for each in known for name in (*each.opts, *each.secondary_opts)}
        arguments = [each for each in parameters if isinstance(each, click.Argument)]
        self._arguments = {f"--{_name_of(each)}": each for each in arguments if each.nargs == 1}
        self._named: dict[str, str] = {}
        self.options: list[str] = []
        self.bare: list[str] = []
        #: The options that were typed, by their names with two dashes.
        self.seen: set[str] = set()
        #: Whether all that follows the options are to be read as they are.
        self.is_plain = False

    def read(self, words: Iterator[str]) -> None:
        """Take all words."""
        for word in words:
            if word == "--":
                self.is_plain = True
                self.bare += words
            elif not word.startswith("-") or word == "-":
                self.bare.append(word)
                if isinstance(self._ctx.command, click.Group):  # what follows is the command's
                    self.bare += words
            else:
                self._read_option(word, words)

    def in_order(self) -> list[str]:
        """Return the bare words, with the arguments that were typed as options in their places."""
        found = []
        for name, argument in self._arguments.items():
            if name in self._named:
                found.append(self._named[name])
            elif self.bare:
                found.append(self.bare.pop(0))
            elif argument.required and self._named:  # or the next one would be taken for it
                raise click.MissingParameter(ctx=self._ctx, param=argument)
        return [*found, *self.bare]

    def _read_option(self, word: str, words: Iterator[str]) -> None:
        typed, equals, value = word.partition("=")
        name = typed.replace("_", "-")
        if name not in self._known and f"-{name}" in self._known:
            name = f"-{name}"
        double = f"--{name.lstrip('-')}"
        if name in self._known:
            self.seen.update(each for each in self._known[name].opts if each.startswith("--"))
            self.options.append(f"{name}{equals}{value}")
            if not equals:
                self._take_value(self._known[name], words)
        elif double in self._arguments:
            taken = value if equals else next(words, None)
            if taken is None:
                raise click.BadOptionUsage(double, f"Option '{printable(typed)[:80]}' requires an argument.", self._ctx)
            self._named[double] = taken
        elif self._is_short(word) or self._ctx.resilient_parsing:
            self.options.append(word)
            if (last := self._known.get(f"-{word[-1]}")) is not None and len(word) > 1:
                self._take_value(last, words)
        else:
            raise self._no_option(typed, double.removeprefix("--"))

    def _take_value(self, option: click.Option, words: Iterator[str]) -> None:
        if not (option.is_flag or option.count):
            self.options += islice(words, option.nargs)

    def _is_short(self, word: str) -> bool:
        """Tell whether these are options of one letter, such as -vy, or one with its number, such as -n3."""
        for place, letter in enumerate(word[1:], 2):
            option = self._known.get(f"-{letter}")
            if option is None:
                return False
            if not option.is_flag:
                return not word[place:] or word[place:].isdecimal()
        return True

    def _no_option(self, typed: str, name: str) -> click.UsageError:
        shown = f"no option {printable(typed)[:80]}"
        if name in HABITS:
            return click.NoSuchOption(typed, f"{shown}; {HABITS[name]}", ctx=self._ctx)
        names = sorted({each.lstrip("-") for each in (*self._known, *self._arguments) if each.startswith("--")})
        near = [each for each in names if each.startswith(name) and "-" not in each[len(name) :]][:1]
        if not near:
            # All commands are loaded for this.
            others = getattr(self._ctx.find_root().command, "commands", {})
            has = [command for command, each in others.items() if any(f"--{name}" in one.opts for one in each.params)]
            if 0 < len(has) <= _FEW:
                return click.NoSuchOption(typed, f"{shown}; fink-dask {has[0]} has it", ctx=self._ctx)
            from difflib import get_close_matches

            near = get_close_matches(name, names, 1)
        if near:
            dashes = "--" if typed.startswith("--") else "-"
            shown += f"; did you mean {dashes}{near[0]}?"
        return click.NoSuchOption(typed, shown, ctx=self._ctx)
