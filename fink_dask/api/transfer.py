"""Transfer a topic from Python, and verify its dataset: from a script, a notebook, or somebody else's program."""

from __future__ import annotations

import logging
import multiprocessing
import os
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow.dataset as ds
from distributed import Client, default_client

from fink_dask.api.settings import TRANSFER_ARGUMENTS, errors_in_python, transfer_settings
from fink_dask.cluster.choice import ClusterChoice
from fink_dask.cluster.existing import Scheduler
from fink_dask.cluster.forkserver import MALLOC, hide_main, show_main, stop_forkserver
from fink_dask.cluster.leftovers import Kept, variables
from fink_dask.dataset.read import open_dataset
from fink_dask.errors import SettingsError, TransferError, parameter
from fink_dask.kafka.topics import check_alert_topic
from fink_dask.ledger.outdir import find_datasets
from fink_dask.ledger.summary import Summary, written_bytes
from fink_dask.planning.forecast import Machine
from fink_dask.planning.preview import Outlook, preview
from fink_dask.progress.events import Event, Note
from fink_dask.progress.profile import Profile
from fink_dask.progress.tally import Progress
from fink_dask.running.run import cores_of, run_transfer
from fink_dask.settings import COMPRESSION, DASHBOARD_ADDRESS, FRAMINGS, ON_BAD_RECORD, ON_LOSS, parse_address
from fink_dask.show.bar import CountBar
from fink_dask.show.display import Display, doing
from fink_dask.store.location import locate
from fink_dask.verifying.files import SeasonVerification, Verification, verify_dataset

log = logging.getLogger(__name__)

_GUARD = "if __name__ == '__main__': above the"
#: Set for the processes that a transfer starts, and restored afterwards for those that the user starts.
_VARIABLES = (
    *("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", *MALLOC),
    *("PYTHONHASHSEED", "__DASK_PARENT_PID"),  # of Dask's nannies
)


@dataclass(frozen=True)
class TransferResult:
    """The result of a transfer.

    Parameters
    ----------
    outdir : pathlib.Path
        The dataset.
    summary : Summary
        What the dataset holds, and what this run added: ``alerts``, ``quarantined``, ``lost``, ``files``,
        ``written_bytes``, ``run_alerts``, ``run_seconds`` and others.
    profile : Profile
        Where the time of the run went.
    """

    outdir: Path
    summary: Summary
    profile: Profile

    @property
    def is_complete(self) -> bool:
        """Whether every offset is accounted for in the dataset itself: none in its quarantine, none lost."""
        return self.summary.state == "complete"

    @property
    def dataset(self) -> ds.Dataset:
        """The dataset, opened; see `fink_dask.open_dataset`."""
        return open_dataset(self.outdir)


@errors_in_python()
def transfer(
    topic: str,
    outdir: str | os.PathLike[str],
    bootstrap_servers: str | None = None,
    *,
    partitionby: str | Sequence[str] | None = None,
    columns: str | Sequence[str] | None = None,
    where: str | None = None,
    limit: int | None = None,
    restart: bool = False,
    client: Client | None = None,
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
    progress: bool = True,
    dashboard_address: str = DASHBOARD_ADDRESS,
    **connection: Any,
) -> TransferResult:
    """Move everything that a topic holds into a partitioned Parquet dataset, exactly once.

    The same call continues where an earlier one, or ``fink-dask transfer``, stopped, and also fetches alerts that have
    arrived since. An interrupt (Ctrl+C, the stop button of a notebook) is safe at any time.

    Parameters
    ----------
    topic : str
        The topic.
    outdir : str or os.PathLike
        Directory of the dataset; its ledger ``OUTDIR.fink`` is beside it. If the directory holds the datasets of other
        topics, this one becomes another of them, ``OUTDIR/TOPIC``.
    bootstrap_servers : str, optional
        ``host:port`` pairs separated by commas; by default those of ``FINK_DASK_BOOTSTRAP_SERVERS``, or of the
        credentials file.
    partitionby : str or sequence of str, optional
        The partition columns: ``time``, columns or dotted fields; ``()`` for none. A dataset keeps these, `columns`,
        `where`, `survey` and `outformat` as it was begun: leave them out to continue it.
    columns : str or sequence of str, optional
        Take only these columns, or dotted fields of structs; all in a new dataset otherwise.
    where : str, optional
        Take only alerts for which this is true, such as ``"candidate.magpsf < 18"``; see docs/selecting.md.
    limit : int, optional
        The most alerts that the dataset is to hold in all.
    restart : bool
        Begin again; the old dataset is removed once the new one is complete, and holds no less.
    client : distributed.Client, optional
        A client of the Dask cluster that does the work; by default the current client, if there is one, and otherwise
        processes on this machine's cores that end with the transfer. A script that relies on these processes needs
        ``if __name__ == "__main__":`` above the call, as each of them imports the script.
    nconsumers : int, optional
        Ranges to consume at once; by default as many as the cluster has threads, also where workers come and go
        meanwhile, or as this machine has cores.
    memory_limit : int or str, optional
        Bytes that all processes together may take, such as ``"4GB"``; by default half of the usable memory.
    outformat : {"parquet", "avro"}, optional
        Format of the files; Avro files hold the records as they came. Parquet in a new dataset otherwise.
    compression : str
        Codec of Parquet files: one of `fink_dask.settings.COMPRESSIONS`.
    schema : str or os.PathLike, optional
        A file with the Avro schema, instead of the one in Kafka.
    framing : {"auto", "none", "confluent", "single-object", "container"}
        What is around each record in its value; by default found out from a few records.
    survey : {"ztf", "lsst"}, optional
        The survey; by default taken from the topic's name.
    group_id : str, optional
        Consumer group for which offsets are committed at the end, for other tools.
    on_bad_record : {"quarantine", "fail"}
        What to do with a record that can't be decoded.
    on_loss : {"continue", "fail"}
        If Kafka removed alerts before they were read: declare them lost, or fail.
    force : bool
        Begin even if the disk seems too small for what there is to write.
    since, until : str or datetime.datetime, optional
        Take only alerts that came to Kafka from, and before, these times: ``"2026-02-24"``, ``"2026-02-24T03:00"`` (UTC
        unless it has a zone), or ``"6h"`` for that long ago. A dataset keeps `since`; `until` is of one call.
    wait_for_topic : float or str, optional
        How long to wait for a topic, its schema and its first alert that are not there yet, in seconds or as text such
        as ``"10m"``; by default not at all.
    progress : bool
        Show progress, on stderr or below the cell of a notebook.
    dashboard_address : str
        ``host:port`` of the Dask dashboard, if the processes of this machine do the work.
    **connection
        ``reconnect_timeout``: how long Kafka may send nothing, or be unreachable, in seconds or as text such as
        ``"10m"``; 5 minutes by default. ``limit_rate``: the most that all consumers together may read from Kafka, in
        bytes a second or as text such as ``"5MB/s"``. ``security_protocol``, ``sasl_mechanism``, ``username``,
        ``password``, ``password_file``, ``oauth_token_url``, ``oauth_scope``, ``ssl_ca_file``: see
        `fink_dask.kafka.credentials.find_kafka`.

    Returns
    -------
    TransferResult
        What the dataset holds.

    Raises
    ------
    FinkDaskError
        If it was refused, or could not be finished. What is committed is safe, and the same call continues from there.

    Examples
    --------
    >>> import fink_dask
    >>> done = fink_dask.transfer("ftransfer_ztf_2026-02-24_123456", "alerts", partitionby="time")  # doctest: +SKIP
    >>> done.summary.alerts, done.is_complete  # doctest: +SKIP
    """
    # Fields of the settings have their names here, so one more needs no line but its argument's.
    asked = {name: value for name, value in locals().items() if name in TRANSFER_ARGUMENTS}
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        # Python itself would say so at length, for each worker and again for each one that replaces it.
        raise SettingsError(f"fink_dask.transfer is called while a script is imported: it needs {_GUARD} call")
    lent = _choose_client(client)
    address = parse_address(parameter("dashboard_address"), dashboard_address)
    settings = transfer_settings(topic, outdir, bootstrap_servers, lent, **asked, **connection)
    shown: AbstractContextManager[Progress] = Display() if progress else nullcontext(Progress(_log))
    with _leaving_nothing(), shown as run:
        try:
            found = run_transfer(settings, run, ClusterChoice(_scheduler(lent, nconsumers), address), restart)
        except TransferError as error:
            # Dask raises RuntimeError when a process ends before it has become a worker.
            if lent is not None or not isinstance(error.__cause__, RuntimeError):
                raise
            raise TransferError(f"{error.message}; a script needs {_GUARD} call") from error
    return TransferResult(found.outdir, found.summary, found.profile)


@errors_in_python()
def plan(
    topic: str,
    outdir: str | os.PathLike[str],
    bootstrap_servers: str | None = None,
    *,
    restart: bool = False,
    client: Client | None = None,
    **settings: Any,
) -> Outlook:
    """Find out what `transfer` would do, without writing anything.

    Parameters
    ----------
    topic, outdir, bootstrap_servers, restart, client
        As for `transfer`.
    **settings
        The other arguments of `transfer`; ``dashboard_address`` makes no difference here.

    Returns
    -------
    Outlook
        What would be read: the ``offsets`` and the number of ranges, what is already committed, and the ``forecast`` of
        bytes and seconds; `transfer` refuses more ``written_bytes`` than there are ``free_bytes``.

    Raises
    ------
    FinkDaskError
        If it would be refused for anything else.
    """
    settings.pop("dashboard_address", None)
    shown = doing("looking at the topic") if settings.pop("progress", True) else nullcontext()
    check_alert_topic(topic)
    lent = _choose_client(client)
    asked = transfer_settings(topic, outdir, bootstrap_servers, lent, **settings)
    with shown:
        return preview(asked, Machine(cores_of(asked, ClusterChoice(_scheduler(lent)))), restart)


def _choose_client(given: Client | None) -> Client | None:
    """Take the given client, or else the current one, if there is one."""
    try:
        client = given if given is not None else default_client()
    except ValueError:
        return None
    if not isinstance(client, Client):
        raise SettingsError(f"client is {str(client)[:80]!r}, but must be a distributed.Client")
    if client.asynchronous:
        raise SettingsError("the client is asynchronous, but a transfer needs a synchronous one: Client(address)")
    if client.status != "running":
        raise SettingsError(f"the client is {client.status}: give another, Client(address)")
    return client


def _scheduler(client: Client | None, nconsumers: int | None = None) -> Scheduler | None:
    if client is None:
        return None
    return Scheduler(client.scheduler.address, client=client, all_threads=nconsumers in {None, -1})


def _log(event: Event) -> None:
    if isinstance(event, Note):
        log.log(logging.WARNING if event.warning else logging.INFO, "%s", event.text)


#: The environment of the user's process, and the one that workers are forked from.
_environment = variables(_VARIABLES)
_forkserver = Kept(lambda: None, lambda _: stop_forkserver())
_main = Kept(hide_main, show_main)


@contextmanager
def _leaving_nothing() -> Iterator[None]:
    """Leave nothing of a transfer's in the user's process."""
    with _environment.while_changed(), _forkserver.while_changed(), _main.while_changed():
        yield


def verify(outdir: str | os.PathLike[str], *, progress: bool = True) -> Verification | SeasonVerification:
    """Prove a dataset: check files, rows, checksums and offsets against its ledger.

    Parameters
    ----------
    outdir : str or os.PathLike
        The dataset's directory, whose ledger ``OUTDIR.fink`` is beside it, or one with the datasets of several topics.
    progress : bool
        Show progress, on stderr or below the cell of a notebook.

    Returns
    -------
    Verification or SeasonVerification
        What was found: ``is_complete`` tells whether every planned offset is in the dataset as it was written;
        ``problems`` lists what is wrong, a line each; ``summary`` counts. Of several topics, ``topics`` has the same of
        each.

    Raises
    ------
    LedgerError
        If there is no ledger, it is damaged, or a transfer is still changing the dataset.
    StorageError
        If the file system refuses.
    """
    ledger, several = find_datasets(locate(outdir).resolve())
    ledgers = several or [ledger]
    with CountBar("verifying", sum(map(written_bytes, ledgers))) if progress else nullcontext() as bar:
        advance = (lambda _: None) if bar is None else bar.advance
        found = {each.outdir.name: verify_dataset(each, advance) for each in ledgers}
    return SeasonVerification(found) if several else found[ledger.outdir.name]
