"""The options for reaching Kafka; secrets never come from the command line."""

from __future__ import annotations

import os
from typing import Any

import click

from fink_dask.cli.options import options_from
from fink_dask.cli.say import say
from fink_dask.errors import variable
from fink_dask.kafka.credentials import find_kafka
from fink_dask.settings import Connection, KafkaSettings, options_of

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


class _Secret:
    """What was in the environment when it was first asked for."""

    password: str | None = None


def _warn(words: str) -> None:
    say(f"{click.style('fink-dask: warning:', fg='yellow')} {words}", err=True)
