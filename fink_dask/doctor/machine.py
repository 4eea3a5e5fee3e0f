"""Check this machine: versions, the decoder's compiler, cores and memory."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version

from rich.filesize import decimal

from fink_dask.cluster.local import MEMORY_FRACTION, usable_cores, usable_memory
from fink_dask.doctor.check import Check
from fink_dask.errors import SettingsError
from fink_dask.kafka.client import librdkafka_version
from fink_dask.ranges.memory import BASE_BYTES, WORKER_BYTES, share_memory

#: Packages whose versions should be the same on all machines of a transfer.
_PACKAGES = ("fink-dask", "dask", "distributed", "pyarrow", "numba", "numpy", "confluent-kafka")


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
        words = f"numba can't compile the decoder: {type(error).__name__}: {' '.join(str(error).split())[:200]}"
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
        share_memory(limit, BASE_BYTES + cores * WORKER_BYTES, 2 * cores, 2 * cores)
    except SettingsError as error:
        return Check("memory", "fail", f"{words}: {error}", "transfer with --nconsumers 1, or a larger --memory-limit")
    return Check("memory", "ok", words)
