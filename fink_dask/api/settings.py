"""Turn the arguments of the functions into settings: a topic's Kafka, a transfer; errors name the arguments."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from distributed import Client

from fink_dask.cluster.existing import threads_of
from fink_dask.cluster.local import usable_cores
from fink_dask.errors import FinkDaskError, SettingsError, option, parameter
from fink_dask.kafka.credentials import SERVERS_VARIABLE, find_kafka
from fink_dask.kafka.topics import check_topic_name, survey_of
from fink_dask.settings import SURVEYS, Connection, KafkaSettings, Option, TransferSettings, options_of
from fink_dask.store.bucket import wait_for_stores
from fink_dask.store.location import expand, locate

log = logging.getLogger(__name__)


def _names_of(kind: type) -> set[str]:
    return {given.name for given, _ in options_of(kind).values() if given.in_python}


#: Arguments of `transfer` that are fields of its settings.
TRANSFER_ARGUMENTS = _names_of(TransferSettings)
#: Other arguments of `kafka_of`.
_CONNECTION = _names_of(Connection) - {"bootstrap_servers"} | {"password"}
#: Arguments that are options of the command line, with the same names.
ARGUMENTS = (
    {"topic", "outdir", "bootstrap_servers", "restart", "dashboard_address", "partition_bytes"}
    | TRANSFER_ARGUMENTS
    | _CONNECTION
)


@contextmanager
def errors_in_python() -> Iterator[None]:
    """Let errors of the block name Python arguments instead of command-line options."""
    try:
        yield
    except FinkDaskError as error:
        error.spell(_argument)
        raise


def _argument(name: str, value: str) -> str:
    """Spell a parameter as Python has it; a word in capitals stands for something of the user's."""
    if name not in ARGUMENTS:  # such as --follow, which only the command has
        return option(name, value)
    return f"{name}={value if value.isupper() or value == 'True' else repr(value)}" if value else name


def transfer_settings(
    topic: str,
    outdir: str | os.PathLike[str],
    bootstrap_servers: str | None,
    client: Client | None,
    **given: Any,
) -> TransferSettings:
    """Collect the settings of a transfer.

    Parameters
    ----------
    topic, outdir, bootstrap_servers, client, **given
        The arguments of `fink_dask.transfer`.

    Raises
    ------
    SettingsError
        If something is missing or wrong.
    """
    connection = {name: value for name, value in given.items() if name not in TRANSFER_ARGUMENTS}
    kafka = kafka_of(topic, given.get("survey"), bootstrap_servers, "transfer", **connection)
    asked = taken(TransferSettings, given)
    if asked.get("nconsumers", -1) == -1:
        asked["nconsumers"] = usable_cores() if client is None else threads_of(client)
    return TransferSettings(topic=topic, outdir=locate(outdir), kafka=kafka, **asked)


def kafka_of(
    topic: str, survey: str | None, bootstrap_servers: str | None, function: str, **connection: Any
) -> KafkaSettings:
    """Find out how to reach a topic.

    Parameters
    ----------
    topic : str
        The topic.
    survey : {"ztf", "lsst"}, optional
        Whose credentials file to use; by default taken from the topic's name.
    bootstrap_servers : str, optional
        ``host:port`` pairs; by default those of the environment, or of the credentials file.
    function : str
        The function whose help lists the arguments.
    **connection
        Other arguments of `find_kafka`; and ``reconnect_timeout`` and ``limit_rate``, as numbers or as text.

    Raises
    ------
    SettingsError
        If something is missing or wrong.
    """
    unknown = connection.keys() - _CONNECTION
    if unknown:
        raise SettingsError(f"there is no argument {min(unknown)[:40]!r}: help(fink_dask.{function}) lists them")
    check_topic_name(topic)
    if survey is not None and survey not in SURVEYS:
        raise SettingsError(f"{parameter('survey')} is {str(survey)[:40]!r}, but must be one of {', '.join(SURVEYS)}")
    asked = taken(Connection, connection)
    if (timeout_s := asked.get("reconnect_timeout_s")) is not None:
        wait_for_stores(timeout_s)
    servers = bootstrap_servers or os.environ.get(SERVERS_VARIABLE)
    password = connection.get("password")
    given = Connection(bootstrap_servers=servers, password=password, **asked)
    return find_kafka(survey or survey_of(topic), log.warning, given)


def taken(kind: type, given: Mapping[str, Any]) -> dict[str, Any]:
    """Make fields of a settings class from arguments; one that is None keeps its default."""
    options = {field: option for field, (option, _) in options_of(kind).items() if option.in_python}
    asked = {field: (option, given.get(option.name)) for field, option in options.items()}
    return {field: _value(option, value) for field, (option, value) in asked.items() if value is not None}


def _value(option: Option, value: Any) -> Any:
    """Take an argument as a text, as on the command line, or as Python has it."""
    if option.is_file:
        return expand(os.fspath(value))
    if option.is_number and not isinstance(value, int):
        raise SettingsError(f"{parameter(option.name)} is {str(value)[:40]!r}, but must be a whole number")
    if option.parse is None:
        return value
    if isinstance(value, datetime):
        value = value.isoformat()
    elif isinstance(value, Iterable) and not isinstance(value, str):
        value = ",".join(map(str, value))
        if not value:  # no names
            return ()
    return option.parse(parameter(option.name), str(value))
