"""Turn the arguments of the functions into settings: a topic's Kafka, a transfer; errors name the arguments."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from distributed import Client

from fink_dask.cluster.existing import threads_of
from fink_dask.cluster.local import usable_cores
from fink_dask.errors import FinkDaskError, SettingsError, option, parameter
from fink_dask.kafka.credentials import SERVERS_VARIABLE, find_kafka
from fink_dask.kafka.topics import check_topic_name, survey_of
from fink_dask.settings import (
    COMPRESSION,
    FRAMINGS,
    ON_BAD_RECORD,
    ON_LOSS,
    SURVEYS,
    Connection,
    KafkaSettings,
    TransferSettings,
    options_of,
)
from fink_dask.store.bucket import wait_for_stores
from fink_dask.store.location import expand, locate
from fink_dask.units import Moment, parse_duration, parse_memory, parse_moment, parse_rate

log = logging.getLogger(__name__)


def _names_of(kind: type) -> set[str]:
    return {given.name for given, _ in options_of(kind).values() if given.in_python}


#: Other arguments of `kafka_of`.
_CONNECTION = _names_of(Connection) - {"bootstrap_servers"} | {"password"}
#: Arguments that are options of the command line, with the same names.
ARGUMENTS = (
    {"topic", "outdir", "bootstrap_servers", "restart", "dashboard_address", "partition_bytes"}
    | _names_of(TransferSettings)
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
    *,
    partitionby: str | Sequence[str] | None = None,
    columns: str | Sequence[str] | None = None,
    where: str | None = None,
    limit: int | None = None,
    nconsumers: int | None = None,
    memory_limit: int | str | None = None,
    outformat: str | None = None,
    compression: str = COMPRESSION,
    schema: str | os.PathLike[str] | None = None,
    framing: str = FRAMINGS[0],
    survey: str | None = None,
    group_id: str | None = None,
    on_bad_record: str = ON_BAD_RECORD[0],
    on_loss: str = ON_LOSS[0],
    force: bool = False,
    since: str | datetime | None = None,
    until: str | datetime | None = None,
    wait_for_topic: float | str | None = None,
    **connection: Any,
) -> TransferSettings:
    """Collect the settings of a transfer; see `fink_dask.transfer`.

    Raises
    ------
    SettingsError
        If something is missing or wrong.
    """
    kafka = kafka_of(topic, survey, bootstrap_servers, "transfer", **connection)
    for name, value in (("limit", limit), ("nconsumers", nconsumers)):
        if value is not None and not isinstance(value, int):
            raise SettingsError(f"{parameter(name)} is {str(value)[:40]!r}, but must be a whole number")
    return TransferSettings(
        topic=topic,
        outdir=locate(outdir),
        kafka=kafka,
        survey=survey,
        partitionby=_partition_columns(partitionby),
        nconsumers=nconsumers if nconsumers not in {None, -1} else _threads(client),
        limit=limit,
        schema_file=None if schema is None else expand(os.fspath(schema)),
        framing=framing,
        group_id=group_id,
        columns=None if columns is None else as_names("columns", columns),
        where=where,
        outformat=outformat,
        compression=compression,
        memory_limit=None if memory_limit is None else parse_memory(parameter("memory_limit"), str(memory_limit)),
        on_bad_record=on_bad_record,
        on_loss=on_loss,
        force=force,
        since=as_moment("since", since),
        until=as_moment("until", until),
        wait_for_topic_s=None
        if wait_for_topic is None
        else parse_duration(parameter("wait_for_topic"), str(wait_for_topic)),
    )


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
    for name in ("password_file", "ssl_ca_file"):
        if connection.get(name) is not None:
            connection[name] = expand(os.fspath(connection[name]))
    if (timeout := connection.pop("reconnect_timeout", None)) is not None:
        connection["reconnect_timeout_s"] = parse_duration(parameter("reconnect_timeout"), str(timeout))
        wait_for_stores(connection["reconnect_timeout_s"])
    if (rate := connection.get("limit_rate")) is not None:
        connection["limit_rate"] = parse_rate(parameter("limit_rate"), str(rate))
    servers = bootstrap_servers or os.environ.get(SERVERS_VARIABLE)
    return find_kafka(survey or survey_of(topic), log.warning, Connection(bootstrap_servers=servers, **connection))


def _partition_columns(given: str | Sequence[str] | None) -> tuple[str, ...] | None:
    """Take partition columns as the command line does: none of them is ``"none"``."""
    if given is None:
        return None
    return () if given == "none" else as_names("partitionby", given)


def as_names(argument: str, given: str | Sequence[str]) -> tuple[str, ...]:
    """Take names as a sequence, or separated by commas as on the command line."""
    names = tuple(str(name).strip() for name in (given.split(",") if isinstance(given, str) else given))
    if argument == "columns":  # as on the command line, where a name may come twice
        names = tuple(dict.fromkeys(names))
    if not all(names) or len(set(names)) < len(names):
        raise SettingsError(f"{parameter(argument)} should be names, each once, but is {str(given)[:80]!r}")
    return names


def as_moment(argument: str, given: str | datetime | None) -> Moment | None:
    """Take a time as a text, as on the command line, or as Python has it; UTC unless it has a zone."""
    if given is None:
        return None
    return parse_moment(parameter(argument), given.isoformat() if isinstance(given, datetime) else str(given))


def _threads(client: Client | None) -> int:
    """Count the ranges that can be consumed at once: the threads of the cluster, or the cores of this machine."""
    return usable_cores() if client is None else threads_of(client)
