"""What is changed, which tests must notice, and what none can notice."""

from __future__ import annotations

_COMMIT = (
    "tests/ledger/test_commit.py",
    "tests/ledger/test_commit_model.py",
    "tests/ledger/test_roll_forward.py",
    "tests/ledger/test_revision.py",
    "tests/store/test_power_cut.py",
    "tests/ledger/test_commit_on_store.py",
)
_DECODER = (
    "tests/avro/test_decoder.py",
    "tests/avro/test_unions.py",
    "tests/avro/test_columnar.py",
)

#: The files of each area, and for each the test files that reach it: first those that notice most, and soonest.
AREAS: dict[str, dict[str, tuple[str, ...]]] = {
    "commit": {
        "fink_dask/ledger/commit.py": _COMMIT,
        "fink_dask/ledger/lease.py": ("tests/ledger/test_lease.py", "tests/store/test_objects.py"),
        "fink_dask/ledger/remainder.py": (
            "tests/ledger/test_remainder.py",
            "tests/ledger/test_revision.py",
        ),
        "fink_dask/ledger/outdir.py": (
            "tests/ledger/test_gather.py",
            "tests/ledger/test_ledger.py",
            "tests/ledger/test_several.py",
        ),
    },
    "store": {
        "fink_dask/store/newfile.py": (
            "tests/store/test_newfile.py",
            "tests/store/test_power_cut.py",
            "tests/dataset/test_formats.py",
            "tests/ledger/test_roll_forward.py",
        ),
        "fink_dask/store/local.py": (
            "tests/store/test_local.py",
            "tests/store/test_power_cut.py",
            "tests/ledger/test_ledger.py",
            "tests/ledger/test_lease.py",
            "tests/ledger/test_restart.py",
            "tests/ledger/test_gather.py",
            "tests/ledger/test_roll_forward.py",
            "tests/ledger/test_commit.py",
            "tests/store/test_store.py",
        ),
        "fink_dask/store/remote.py": (
            "tests/store/test_store.py",
            "tests/store/test_objects.py",
            "tests/ledger/test_commit_on_store.py",
            "tests/ledger/test_restart_on_store.py",
            "tests/compaction/test_compact_on_store.py",
        ),
    },
    "reader": {
        "fink_dask/kafka/reader.py": (
            "tests/kafka/test_reader_events.py",
            "tests/kafka/test_pending.py",
            "tests/kafka/test_reader.py",
            "tests/kafka/test_mock_broker.py",
            "tests/kafka/test_reader_faults.py",
        ),
        "fink_dask/kafka/records.py": ("tests/kafka/test_pending.py", "tests/kafka/test_partition_queue.py"),
        "fink_dask/kafka/offsets.py": (
            "tests/kafka/test_offsets.py",
            "tests/planning/test_plan.py",
            "tests/kafka/test_reader_events.py",
        ),
    },
    "decoder": {f"fink_dask/avro/{name}.py": _DECODER for name in ("columns", "kernels", "appending", "decoder")}
    | {"fink_dask/compiling.py": _DECODER},
}

#: Those that numba compiles, and those whose tests need a Kafka.
COMPILED = ("fink_dask/avro/kernels.py", "fink_dask/avro/appending.py", "fink_dask/compiling.py")
WITH_KAFKA = {*AREAS["reader"]}

#: What is loaded before all tests.
LIBRARIES = (
    "botocore.session",
    "confluent_kafka.admin",
    "distributed",
    "fastavro",
    "hypothesis.extra.pytestplugin",
    "numba",
    "obstore",
    "pandas",
    "pyarrow.dataset",
    "pyarrow.parquet",
    "xdist.plugin",
    "yaml",
)

#: Changes that nobody could notice, and why.
EQUIVALENT = {
    "fink_dask/avro/columns.py Scratch._make_scope: 1 → 2": "a row more of memory than there has to be",
    "fink_dask/avro/columns.py _enough: 0 → 1": "what does not fit takes more than one",
    "fink_dask/compiling.py _peeks: True → False": "what is read is a place, a length, or copied as it is",
    "fink_dask/compiling.py _extended: load.align = 1 → pass": "processors of today read at any address",
    "fink_dask/avro/kernels.py is_decimal: extra > 0 → (extra >= 0)": "the first byte has the sign already",
    "fink_dask/kafka/offsets.py subtract: break → continue": "what follows in order begins later still",
    "fink_dask/kafka/reader.py RangeReader._read: self._taken_bytes >= self._connection.fetch_bytes → "
    "(self._taken_bytes > self._connection.fetch_bytes)": "a measure of speed, of exactly as many bytes as a fetch",
    "fink_dask/ledger/outdir.py _move: target.path.rmdir() → pass": "POSIX renames over an empty directory as well",
    "fink_dask/store/local.py LocalStore.make_directory_of: continue → break": "the dataset itself is the last one",
    "fink_dask/store/local.py LocalStore.make_directory_of: level == root or twin.name == level.name or not "
    "_is_same(level, twin) → (level == root and twin.name == level.name and (not _is_same(level, twin)))": "one more "
    "is looked into, and has the name",
    "fink_dask/store/local.py LocalStore.persist: False → True": "a file system brings files to the disk whoever stops",
    "fink_dask/store/local.py LocalStore.send: False → True": "the same",
    "fink_dask/store/local.py _Heartbeat.end: 0 → 1": "a second of 1970 is as long ago as another",
    "fink_dask/store/local.py _Heartbeat.end: 0 → 1 #1": "the same",
    "fink_dask/store/remote.py RemoteStore.move_tree: 1 → 2 #1": "what is copied twice is the same",
    "fink_dask/store/newfile.py NewFile.__init__: super().__init__() → pass": "a raw file of Python's begins empty",
}
