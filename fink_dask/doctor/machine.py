"""Check this machine, and where a dataset is to go.

Of the machine: versions, the decoder's compiler, cores and memory. Of the place: what commits need of the file system,
its clock, and its free space.
"""

from __future__ import annotations

import os
import platform
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

from rich.filesize import decimal

from fink_dask.cluster.local import MEMORY_FRACTION, usable_cores, usable_memory
from fink_dask.errors import FinkDaskError, SettingsError, words_of
from fink_dask.kafka.confluent import librdkafka_version
from fink_dask.kafka.probe import LineSpeed
from fink_dask.ledger.outdir import check_outdir, find_ledger, free_bytes, try_place
from fink_dask.ranges.memory import BASE_BYTES, WORKER_BYTES, share_memory
from fink_dask.settings import TransferSettings
from fink_dask.store.local import LOCAL, nearest

State = Literal["ok", "warn", "fail"]

#: Packages whose versions should be the same on all machines of a transfer.
_PACKAGES = ("fink-dask", "dask", "distributed", "pyarrow", "numba", "numpy", "confluent-kafka")

#: Seconds by which the clock of a file server may differ: a lease counts as dead after a minute.
_CLOCK_S = 10.0


@dataclass(frozen=True)
class Check:
    """What was found."""

    name: str
    #: Whether a transfer can work with it.
    state: State
    #: What was found, in one line.
    found: str
    #: What to do or type if it is not ok.
    advice: str = ""
    #: What was measured or estimated, for programs.
    figures: Mapping[str, float | str | None] = field(default_factory=dict)


def check_versions() -> Check:
    """List the versions of the software that a transfer runs on."""
    found = [f"Python {platform.python_version()}"]
    missing = []
    for name in _PACKAGES:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            missing.append(name)
    found.append(f"librdkafka {librdkafka_version()}")
    if missing:
        words = f"the version of {', '.join(missing)} is not known: not installed as a package"
        return Check("versions", "warn", words, "pip install fink-dask")
    return Check("versions", "ok", ", ".join(found))


def check_compiler() -> Check:
    """Compile the decoder, or load it from numba's cache."""
    try:
        from fink_dask.avro.kernels import warm_up  # here, as an incompatible numba fails on import

        seconds = warm_up()
    except Exception as error:  # numba raises many kinds
        words = f"numba can't compile the decoder: {words_of(error)}"
        if isinstance(error, ImportError):
            return Check("compiler", "fail", words, "pip install --upgrade fink-dask numba numpy")
        return Check("compiler", "fail", words, "set NUMBA_CACHE_DIR to a directory that you may write to")
    return Check("compiler", "ok", f"numba has the decoder ready in {seconds:.1f} s")


def check_cores() -> Check:
    """Count the cores that a transfer may use here."""
    usable, there = usable_cores(), os.cpu_count() or 1
    of = f" of {there}: CPU affinity or a cgroup withholds the others" if usable < there else ""
    return Check("cores", "ok", f"{usable} usable{of}")


def check_memory() -> Check:
    """Find out whether there is enough memory for a consumer on each core."""
    usable, cores = usable_memory(), usable_cores()
    limit = int(usable * MEMORY_FRACTION)
    words = f"{decimal(usable)} usable, of which a transfer takes at most {decimal(limit)}"
    try:
        share_memory(limit, BASE_BYTES + cores * WORKER_BYTES, 2 * cores, 2 * cores, asked=cores)
    except SettingsError as error:
        return Check("memory", "fail", f"{words}: {error}", "transfer with --nconsumers 1, or a larger --memory-limit")
    return Check("memory", "ok", words)


def check_place(outdir: Path) -> Iterator[Check]:
    """Try what a commit does, in a temporary directory beside the dataset."""
    ledger = find_ledger(outdir)
    try:
        check_outdir(ledger)
        if not ledger.store.renames:
            ledger.store.try_commit(ledger.path / "trial")
            yield Check("storage", "ok", f"{outdir} can be reached, and keeps a put from replacing an existing object")
            return
        yield from _try(nearest(outdir.parent))
    except FinkDaskError as error:
        yield Check("storage", "fail", str(error), "choose another --outdir")
    except OSError as error:
        words = f"{error.filename or outdir}: {error.strerror}"
        yield Check("storage", "fail", words, "choose an --outdir that you may write to")


def check_room(settings: TransferSettings, line: LineSpeed | None, loaded_s: float = 0.0) -> Check:
    """Compare the free space with what the transfer of a topic is estimated to write; the line may be known."""
    # Here, as they load the decoder, which may be at fault.
    from fink_dask.planning.forecast import Machine
    from fink_dask.planning.preview import preview

    free = free_bytes(settings.outdir)
    if free is None:
        return Check("disk", "ok", f"free space at {settings.outdir} is not known")
    try:
        plans = find_ledger(settings.outdir).plans()
        if plans:  # continue as the dataset was begun
            begun = plans[0].identity
            settings = replace(
                settings,
                survey=begun.survey,
                partitionby=begun.partitionby,
                columns=begun.columns,
                where=begun.where,
                outformat=begun.outformat,
            )
        forecast = preview(settings, Machine(usable_cores(), loaded_s), line=line).forecast
    except FinkDaskError as error:
        words = f"{decimal(free)} free; how much the transfer would write is not known: {error}"
        return Check("disk", "warn", words, "fix that first: it would stop the transfer too")
    if forecast is None:
        return Check("disk", "ok", f"{decimal(free)} free, and nothing to write")
    if forecast.written_bytes is None:
        words = f"{decimal(free)} free; how much the transfer would write is not known: no alert came in time"
        return Check("disk", "warn", words, "try again, or transfer: it goes on where it stops if the disk is full")
    words = f"{decimal(free)} free; the transfer would write about {decimal(forecast.written_bytes)}"
    if forecast.seconds is not None:
        words += f" in about {forecast.took}"
    figures = {"seconds": forecast.seconds, "wire_bytes": forecast.wire_bytes, "bound_by": forecast.bound_by}
    if forecast.written_bytes <= free:
        return Check("disk", "ok", words, figures=figures)
    advice = "make room, choose another --outdir, or take less with --limit or --columns"
    return Check("disk", "fail", words, advice, figures)


def check_disk(outdir: Path, topic: str | None) -> Check:
    """Say how much space is free, where no topic was given, or none could be read, that says how much is needed."""
    free = free_bytes(outdir)
    if free is None:
        return Check("disk", "ok", f"free space at {outdir} is not known")
    more = f"how much {topic} would take is not known, see above"
    if topic is None:
        more = "give a TOPIC to compare that with what its transfer would write"
    return Check("disk", "ok", f"{decimal(free)} free; {more}")


def _try(beside: Path) -> Iterator[Check]:
    try_place(beside)
    with tempfile.NamedTemporaryFile(prefix=".fink-dask-doctor-", dir=beside) as aside:
        before = time.time()
        stamp = LOCAL.time(Path(aside.name))
        after = time.time()
    yield Check("storage", "ok", f"{beside} can link, rename and fsync")
    off_s = max(before - stamp, stamp - after, 0.0)
    if off_s > _CLOCK_S:
        words = (
            f"the clock of the file system in {beside} differs by {off_s:,.0f} s: a running job may look dead to others"
        )
        yield Check("file clock", "warn", words, "timedatectl status, here and on the file server")
