"""Empty a dataset on a store behind a transfer, as a user does who moves files away: list, copy, hand over.

What stands for the copy is where each file's alerts came from, and their ids; it is on the disk before a file is handed
over.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from pathlib import Path

import click
import numpy as np
import pyarrow.parquet as pq

from fink_dask.store.location import locate, store_of
from tests.harness.cli import PROGRAM

#: How often the same list is given.
TRIES = 5
COLUMNS = ["kafka_partition", "kafka_offset", "diaSourceId"]


@click.command()
@click.argument("url")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--every", type=float, required=True, help="Seconds from one round to the next.")
def main(url: str, folder: Path, every: float) -> None:
    """Move what is complete of URL to FOLDER, until a file `stop` is there."""
    round_ = 0
    place = locate(url)
    while not (folder / "stop").exists():
        until = time.monotonic() + every
        listed = subprocess.run([*PROGRAM, "hand-over", url, "--json"], capture_output=True, check=False)
        files = json.loads(listed.stdout)["files"] if listed.returncode == 0 else []
        if files:
            round_ += 1
            tables = []
            for file in files:
                with store_of(place).source(place / file["path"]) as source:
                    table = pq.read_table(source, columns=COLUMNS)
                if table.num_rows != file["alerts"]:
                    raise SystemExit(f"{file['path']} has {table.num_rows} rows")
                tables.append(np.stack([table[name].to_numpy() for name in COLUMNS]))
            keep(folder / f"{round_:06d}.npz", [file["path"] for file in files], tables)
            copied = folder / "copied"
            copied.write_text("".join(f"{file['path']}\n" for file in files))
            _hand_over(url, copied, folder / "repeated")
        while time.monotonic() < until and not (folder / "stop").exists():
            time.sleep(0.1)


def _hand_over(url: str, copied: Path, repeated: Path) -> None:
    """Give the list until it is taken: a store may not answer for a while; note why it was not."""
    for _ in range(TRIES):
        done = subprocess.run(
            [*PROGRAM, "hand-over", url, "--copied", str(copied)], capture_output=True, text=True, check=False
        )
        if done.returncode == 0:
            return
        with repeated.open("a") as file:
            file.write(f"{done.stderr.splitlines()[-1]}\n")
    raise SystemExit(done.stderr)


def keep(path: Path, names: list[str], tables: list[np.ndarray]) -> None:
    """Write what the files of a round hold, durably."""
    aside = path.with_suffix(".part")
    with aside.open("wb") as file:
        np.savez(file, names=np.array(names), rows=np.concatenate(tables, axis=1), counts=[t.shape[1] for t in tables])
        file.flush()
        os.fsync(file.fileno())
    aside.replace(path)


if __name__ == "__main__":
    main()
