"""``fink-dask register``: write the credentials file that Fink's own client reads too."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from fink_dask.cli.command import (
    PASSWORD_VARIABLE,
    at_least_one,
    command,
    connection_options,
    kafka_settings,
    option,
    typed_connection,
    typed_option,
)
from fink_dask.cli.output import say
from fink_dask.errors import SettingsError
from fink_dask.kafka.credentials import credentials_path, read_password
from fink_dask.settings import SURVEYS

#: What the file keeps of `connection_options`.
_KEPT = ("bootstrap_servers", "username", "password_file")


@command("fink-dask register --survey ztf --username ada --group-id ada-1 --bootstrap-servers kafka.example.org:9092")
@typed_option("--survey", type=click.Choice(SURVEYS), required=True, help="Which survey: each has its own file.")
@option("--group-id", "--groupid", metavar="NAME", help="The consumer group that Fink gave you.")
@typed_option(
    "--maxtimeout",
    type=int,
    callback=at_least_one,
    metavar="SECONDS",
    help="How long Fink's own client waits for an alert; 10 in a new file.",
)
@typed_option("--force", is_flag=True, help="Change an existing file without asking.")
@typed_option("--check", is_flag=True, help="Connect and say what was found; with --survey alone, do only that.")
@connection_options
def register(
    survey: str, group_id: str | None, maxtimeout: int | None, force: bool, check: bool, **connection: Any
) -> int:
    """Write ~/.finkclient/SURVEY_credentials.yml, which fink-dask and Fink's own client read.

    Only you can read the file. The password is prompted for without being shown, or comes from --password-file or the
    variable FINK_DASK_PASSWORD; without one, none is written. In an existing file, only what you give is changed.
    """
    from fink_dask.kafka.credentials import Registration, write_credentials

    path = credentials_path(survey)
    there = path.exists()
    if there and check and not force and not _is_anything_typed():
        return _check(survey, group_id, connection)
    if there and not force:
        if not sys.stdin.isatty():
            raise SettingsError(f"{path} exists: --force changes what you give, and keeps the rest")
        click.confirm(f"{path} exists. Change what you give, and keep the rest?", abort=True, err=True)
    username, group, servers = (
        # The environment is for all commands, so it does not overwrite what a file has.
        _asked(words, value if _is_typed(name) or not there else None, there)
        for words, name, value in (
            ("User name that Fink sent you", "username", connection["username"]),
            ("Consumer group", "group_id", group_id),
            ("Servers (HOST:PORT)", "bootstrap_servers", connection["bootstrap_servers"]),
        )
    )
    # Made before the password is asked for, so that what is wrong is refused at once.
    registration = Registration(survey, username, group, servers, maxtimeout=maxtimeout)
    registration = replace(registration, password=_password(connection["password_file"], there))
    write_credentials(path, registration, replace=there)
    say(f"{'changed' if there else 'written'}: {path}, which only you can read")
    if not check:
        unkept = {name: value for name, value in connection.items() if name not in _KEPT}
        click.echo(f"  try it    fink-dask register --survey {survey} --check{typed_connection(unkept)}")
        return 0
    return _check(survey, group_id, connection)


def _is_anything_typed() -> bool:
    """Tell whether there is something to write; the environment does not count, as it is for all commands."""
    return any(map(_is_typed, ("username", "group_id", "bootstrap_servers", "password_file", "maxtimeout")))


def _is_typed(name: str) -> bool:
    return click.get_current_context().get_parameter_source(name) is ParameterSource.COMMANDLINE


def _asked(words: str, value: str | None, there: bool) -> str | None:
    """Ask for what is missing, where somebody can answer and there is no file yet."""
    if value is not None or there or not sys.stdin.isatty():
        return value
    answer: str = click.prompt(words, err=True)
    return answer


def _password(file: Path | None, there: bool) -> str | None:
    if file is not None:
        return read_password(file)
    given = os.environ.pop(PASSWORD_VARIABLE, None)
    if given is None and sys.stdin.isatty():
        keep = "to keep it" if there else "for none"
        words = f"Password (press Enter {keep})"
        given = click.prompt(words, default="", show_default=False, hide_input=True, err=True)
    return given or None


def _check(survey: str, group_id: str | None, connection: dict[str, Any]) -> int:
    """Connect, and say what was found."""
    from fink_dask.kafka.credentials import find_credentials
    from fink_dask.kafka.overview import look_at_topics
    from fink_dask.settings import has_sasl
    from fink_dask.units import pluralize, printable

    if not has_sasl(connection["security_protocol"]):  # these were for the file then
        connection = connection | {"username": None, "password_file": None}
    kafka = kafka_settings(survey, **connection)
    credentials = find_credentials(survey)
    group_id = group_id or (credentials.group_id if credentials is not None else None)
    found = look_at_topics(kafka, group_id=group_id)
    say(f"Kafka at {kafka.bootstrap_servers} answers")
    if has_sasl(kafka.security.protocol):
        say(f"  password  accepted, of {printable(kafka.security.username or '')}")
    else:
        say(f"  password  not asked for ({kafka.security.protocol})")
    say(f"  topics    {pluralize(len(found.topics), 'topic')} of Fink, and {pluralize(found.others, 'other')}")
    if found.group_error is not None:
        say(f"  group     {printable(found.group_error)}")
    elif group_id:
        read = sum(topic.lag is not None for topic in found.topics)
        say(f"  group     {printable(group_id)} has read from {pluralize(read, 'topic')} of these")
    return int(found.group_error is not None)
