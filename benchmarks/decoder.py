"""``python -m benchmarks.decoder [FILE ...]``: processor time of the decoder alone, with made-up packets or Avro files.

The packets of one schema are decoded again and again, in batches of about 4 MiB, and their rows taken as for one
partition key and as for three that alternate; and by pyruhvro, which makes Arrow columns in Rust, in a process of its
own.
"""

from __future__ import annotations

import io
import json
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import click
import fastavro
import numpy as np

from benchmarks.environments import PYRUHVRO, ROOT, python_environment, python_of
from fink_dask.avro.decoder import ColumnarDecoder
from fink_dask.avro.schema import parse_schema
from fink_dask.batches import Memory, join_values
from tests.alerts.made_up import AlertKind, avro_schema, encode, encoded_alerts

_BATCH_BYTES = 2**22
_REPEATS = 15
_PEER = ROOT / "benchmarks" / "jobs" / "pyruhvro_job.py"


def measure(schema: object, values: list[bytes]) -> dict[str, float]:
    """Return the microseconds of the processor that a packet takes, by step, as medians."""
    values *= -(-_BATCH_BYTES // sum(map(len, values)))
    decoder, memory = ColumnarDecoder(parse_schema(json.dumps(schema))), Memory()
    joined = join_values(values, memory)
    one = np.arange(len(values))
    three = np.argsort(one % 3, kind="stable")
    steps: dict[str, Callable[[], object]] = {
        "decode": lambda: decoder.decode_joined(*joined),
        "and take, one key": lambda: decoder.decode_joined(*joined).take(one),
        "and take, three keys": lambda: decoder.decode_joined(*joined).take(three),
    }
    taken: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(_REPEATS):
        for name, step in steps.items():
            began = time.process_time()
            step()
            taken[name].append(time.process_time() - began)
    return {name: statistics.median(each) / len(values) * 1e6 for name, each in taken.items()}


def measure_peer(schema: object, values: list[bytes]) -> str:
    """Return the microseconds that pyruhvro takes, or that it refuses."""
    python = python_of(python_environment("pyruhvro", f"pyruhvro=={PYRUHVRO}", "pyarrow", "fastavro"))
    with tempfile.NamedTemporaryFile(suffix=".avro") as file:
        packets = [fastavro.schemaless_reader(io.BytesIO(value), schema, None) for value in values]
        fastavro.writer(file, schema, packets)
        file.flush()
        run = [python, "-I", str(_PEER), file.name]
        said = subprocess.run(run, capture_output=True, text=True, check=False)
    if said.returncode:
        click.echo(said.stderr.strip().rpartition("\n")[2], err=True)
    return "refused" if said.returncode else f"{float(said.stdout):.2f}"


def packets(file: Path) -> tuple[object, list[bytes]]:
    """Return the schema and the packets of an Avro file."""
    with file.open("rb") as stream:
        reader = fastavro.reader(stream)
        return reader.writer_schema, [encode(reader.writer_schema, packet) for packet in reader]


@click.command()
@click.argument("files", nargs=-1, type=click.Path(exists=True, path_type=Path))
def main(files: tuple[Path, ...]) -> None:
    """Print a table of Markdown."""
    found = {file.stem: packets(file) for file in files}
    found = found or {str(kind): (avro_schema(kind), list(encoded_alerts(kind, 64))) for kind in AlertKind}
    for index, (name, (schema, values)) in enumerate(found.items()):
        steps = {step: f"{taken:.2f}" for step, taken in measure(schema, list(values)).items()}
        steps["pyruhvro"] = measure_peer(schema, values)
        if not index:
            click.echo(f"| µs a packet | {' | '.join(steps)} |\n| --- |{' --- |' * len(steps)}")
        click.echo(f"| {name} | {' | '.join(steps.values())} |")


if __name__ == "__main__":
    main()
