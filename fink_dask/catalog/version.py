"""Write a version of a HATS catalog: what a night touches is written anew, all else has its files from the one before.

Files are never changed: a reader of the version before goes on reading it.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version as version_of
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from hats.catalog import PartitionInfo
from hats.catalog.dataset.collection_properties import CollectionProperties
from hats.catalog.dataset.table_properties import TableProperties
from hats.io import file_io, paths
from hats.io.parquet_metadata import write_parquet_metadata
from hats.io.skymap import write_skymap
from hats.pixel_math import HealpixPixel

from fink_dask.catalog.buckets import Buckets
from fink_dask.catalog.gather import Rows
from fink_dask.catalog.index import INDEX_PATH, entries_of, write_index
from fink_dask.catalog.shards import PLACE, Shard, places_of, with_places, write_shard
from fink_dask.catalog.sky import FINEST_ORDER, MARGIN_ARCSEC, PLACE_ORDER, Division, divide, first_place, histogram
from fink_dask.store.local import LOCAL

#: hats' default level is meant for published catalogs, and takes most of an export's time.
_ZSTD_LEVEL = 3


@dataclass(frozen=True)
class Version:
    """A version of one of the catalogs that a dataset is exported to."""

    #: 1 for the first one.
    number: int
    #: Its pixels, with their rows, and how large these are together.
    pixels: Mapping[HealpixPixel, tuple[int, int]] = field(default_factory=dict)
    alerts: int = 0
    #: The columns that it has an index of.
    indexes: tuple[str, ...] = ()

    @property
    def rows(self) -> int:
        """All rows."""
        return sum(rows for rows, _ in self.pixels.values())


class Place:
    """Where the versions of a catalog are."""

    def __init__(self, directory: Path, name: str) -> None:
        self.directory = directory
        # What LSDB calls the catalog.
        self.name = name

    def main(self, number: int) -> Path:
        """Name the rows of a version."""
        return self.directory / f"{self.name}_v{number}"

    def margin(self, number: int) -> Path:
        """Name the rows beside each of its pixels."""
        return self.directory / f"{self.name}_v{number}_{MARGIN_ARCSEC:.0f}arcs"

    def index(self, number: int, column: str) -> Path:
        """Name its index of a column."""
        return self.directory / f"{self.name}_v{number}_{column}"

    def directories(self, number: int) -> list[Path]:
        """List all directories of a version."""
        return [directory for each, directory in self.versions() if each == number]

    def versions(self) -> list[tuple[int, Path]]:
        """List the directories of all versions, and of which version each is."""
        found = ((re.match(rf"{re.escape(self.name)}_v(\d+)(_|$)", each.name), each) for each in self._beside())
        return [(int(match[1]), each) for match, each in found if match is not None]

    def _beside(self) -> list[Path]:
        return sorted(self.directory.iterdir()) if self.directory.is_dir() else []

    def collection(self, version: Version) -> CollectionProperties:
        """Tell what belongs to a version."""
        margin = self.margin(version.number).name
        return CollectionProperties(
            name=self.name,
            hats_primary_table_url=self.main(version.number).name,
            all_margins=[margin],
            default_margin=margin,
            all_indexes={name: self.index(version.number, name).name for name in version.indexes} or None,
            **TableProperties.new_provenance_dict(self.directory, builder=_builder()),
        )


@dataclass(frozen=True)
class _Written:
    """A pixel that was written: its rows, how large they are, its alerts, and what is in the margins of others."""

    rows: int
    weight: int
    alerts: int
    margins: dict[int, pa.Table]
    entries: Path


class Writer:
    """Writes the next version of a catalog."""

    def __init__(self, place: Place, rows: Rows, old: Version, aside: Path, threads: int) -> None:
        aside.mkdir()
        # Where it is written to; nothing there leads to it yet.
        self._place = place
        # What is in it.
        self._rows = rows
        # The version before; an empty one for the first.
        self._old = old
        self._number = old.number + 1
        # A directory for what waits to be written, which is made.
        self._aside = aside
        # How many files to write at once.
        self._threads = threads
        self._shards: list[Shard] = []
        self._weights = np.zeros(12 << 2 * FINEST_ORDER, dtype=np.int64)
        self._touched: dict[HealpixPixel, None] = {}
        self._alerts = old.alerts

    def touch(self, buckets: Buckets) -> None:
        """Add the alerts of the objects that get more to the buckets, so that they are gathered anew."""
        ids = buckets.ids()
        if not self._old.pixels or ids is None:
            return
        for pixel in entries_of(self._place.index(self._old.number, self._rows.key), self._rows.key, ids):
            rows = self._read(pixel)
            is_known = pc.is_in(rows[self._rows.key], ids)
            buckets.add(self._rows.take_apart(rows.filter(is_known)))
            self._keep(pixel, rows, rows.filter(pc.invert(is_known)))

    def gather(self, buckets: Buckets, advance: Callable[[int], None]) -> int:
        """Make rows of the alerts in the buckets; returns how many alerts were left out."""
        left_out, hit, old = 0, {-1}, Division(sorted(self._old.pixels, key=first_place))
        for alerts in buckets.contents():
            rows, duplicates = self._rows.gather(alerts)
            left_out += duplicates
            placed = with_places(rows)
            hit.update(np.unique(old.find(places_of(placed))).tolist())
            self._wait(placed)
            advance(1)
        for number in sorted(hit - {-1}):
            self._rewrite(old.pixels[number])
        return left_out

    def write(self, begin: Callable[[str, int, str], None], advance: Callable[[int], None]) -> Version:
        """Write the version."""
        pixels = self._pixels()
        division, staying = Division(pixels), self._staying()
        changed = [pixel for pixel in pixels if pixel not in staying]
        begin("writing the catalog", len(changed), "file")
        main = self._place.main(self._number)
        with _without_remarks():
            for pixel in staying:
                _share(self._file(self._old.number, pixel), _file_of(main, pixel))
            written = self._write_all(changed, division, advance)
            sizes = {pixel: self._old.pixels[pixel] for pixel in staying}
            sizes |= {pixel: (found.rows, found.weight) for pixel, found in written.items()}
            version = Version(
                self._number,
                {pixel: sizes[pixel] for pixel in pixels},
                self._alerts + sum(found.alerts for found in written.values()),
                self._write_indexes(staying, written),
            )
            margins = self._write_margins(division, written)
            self._describe(version, margins)
        return version

    def _read(self, pixel: HealpixPixel) -> pa.Table:
        path = self._file(self._old.number, pixel)
        schema = pa.schema([pa.field(PLACE, pa.int64()), *self._rows.schema])
        return pq.read_table(path, partitioning=None).select(schema.names).cast(schema)

    def _keep(self, pixel: HealpixPixel, rows: pa.Table, kept: pa.Table) -> None:
        """Let a pixel be written anew, with these of its rows, and those that are gathered."""
        self._touched[pixel] = None
        self._alerts -= self._rows.alerts_of(rows)
        self._wait(kept)

    def _rewrite(self, pixel: HealpixPixel) -> None:
        """Let a pixel be written anew with all its rows, if it is there and was to stay."""
        if pixel in self._old.pixels and pixel not in self._touched:
            rows = self._read(pixel)
            self._keep(pixel, rows, rows)

    def _wait(self, rows: pa.Table) -> None:
        if rows.num_rows:
            self._weights += histogram(places_of(rows), self._rows.weights(rows))
            self._shards.append(write_shard(self._aside / f"{len(self._shards):05d}.arrow", rows))

    def _staying(self) -> list[HealpixPixel]:
        return [pixel for pixel in self._old.pixels if pixel not in self._touched]

    def _pixels(self) -> list[HealpixPixel]:
        """Divide the sky; what is beside a new pixel is written anew as well, as that has some of it in its margin."""
        for pixel in self._staying():
            self._weights[first_place(pixel) >> 2 * (PLACE_ORDER - FINEST_ORDER)] += self._old.pixels[pixel][1]
        pixels = divide(self._weights, self._rows.most_in_file, self._staying())
        division = Division(pixels)
        for pixel in pixels:
            if pixel not in self._old.pixels:
                for number in division.beside(pixel):
                    self._rewrite(pixels[number])
        return pixels

    def _file(self, number: int, pixel: HealpixPixel) -> Path:
        return _file_of(self._place.main(number), pixel)

    def _write_all(
        self, pixels: Sequence[HealpixPixel], division: Division, advance: Callable[[int], None]
    ) -> dict[HealpixPixel, _Written]:
        """Write the rows of some pixels."""
        written = {}
        threads = ThreadPoolExecutor(self._threads)
        try:
            for pixel, found in zip(pixels, threads.map(lambda each: self._write(each, division), pixels), strict=True):
                written[pixel] = found
                advance(1)
        finally:
            threads.shutdown(cancel_futures=True)  # of what has not begun, if this was stopped
        return written

    def _write(self, pixel: HealpixPixel, division: Division) -> _Written:
        table = pa.concat_tables([rows for shard in self._shards for rows in shard.rows_in(pixel)])
        table = table.sort_by([(PLACE, "ascending"), (self._rows.key, "ascending")]).combine_chunks()
        _write_table(_file_of(self._place.main(self._number), pixel), table)
        margins = {number: table.take(pa.array(rows)) for number, rows in division.margins(places_of(table))}
        entries = self._aside / f"entries-{pixel.order}-{pixel.pixel}.parquet"
        columns = {name: table[name] for name in (*self._rows.indexed, PLACE)}
        pq.write_table(pa.table(columns), entries, compression="lz4")
        weight = int(self._rows.weights(table).sum())
        return _Written(table.num_rows, weight, self._rows.alerts_of(table), margins, entries)

    def _write_margins(self, division: Division, written: Mapping[HealpixPixel, _Written]) -> list[HealpixPixel]:
        """Write what is beside each pixel: of pixels that stay, what is there already."""
        staying = Division(sorted(self._staying(), key=first_place))
        affected = {number for pixel in (*written, *self._touched) for number in division.beside(pixel)}
        new: dict[int, list[pa.Table]] = {}
        for each in written.values():
            for number, rows in each.margins.items():
                new.setdefault(number, []).append(rows)
        found = []
        for number, pixel in enumerate(division.pixels):
            old = _file_of(self._place.margin(self._old.number), pixel)
            target = _file_of(self._place.margin(self._number), pixel)
            if number not in affected and pixel not in written:
                if old.exists():
                    _share(old, target)
                    found.append(pixel)
                continue
            tables = new.get(number, [])
            if pixel in self._old.pixels and old.exists():
                rows = pq.read_table(old, partitioning=None)
                tables.append(rows.filter(pa.array(staying.find(places_of(rows)) >= 0)))
            if any(table.num_rows for table in tables):
                schema = pa.schema([pa.field(PLACE, pa.int64()), *self._rows.schema])
                table = pa.concat_tables([each.select(schema.names).cast(schema) for each in tables])
                _write_table(target, table.sort_by([(PLACE, "ascending"), (self._rows.key, "ascending")]))
                found.append(pixel)
        return found

    def _write_indexes(
        self, staying: Sequence[HealpixPixel], written: Mapping[HealpixPixel, _Written]
    ) -> tuple[str, ...]:
        entries = {pixel: each.entries for pixel, each in written.items()}
        found = []
        for column in self._rows.indexed:
            kind = self._rows.schema.field(column).type
            old = self._place.index(self._old.number, column)
            new = self._place.index(self._number, column)
            if rows := write_index(new, column, kind, entries, old if column in self._old.indexes else None, staying):
                self._write_properties(
                    new,
                    catalog_name=new.name,
                    catalog_type="index",
                    total_rows=rows,
                    primary_catalog=self._place.main(self._number).name,
                    indexing_column=column,
                )
                found.append(column)
        return tuple(found)

    def _describe(self, version: Version, margins: list[HealpixPixel]) -> None:
        """Write what readers of a catalog look for beside its rows."""
        main, margin = self._place.main(self._number), self._place.margin(self._number)
        schema = pa.schema([pa.field(PLACE, pa.int64()), *self._rows.schema])
        about = {
            "ra_column": "ra",
            "dec_column": "dec",
            "healpix_column": PLACE,
            "healpix_order": PLACE_ORDER,
            "npix_suffix": ".parquet",
        }
        for path, pixels, more in (
            (
                main,
                list(version.pixels),
                {
                    "catalog_name": self._place.name,
                    "catalog_type": self._rows.catalog_type,
                    "total_rows": version.rows,
                    "hats_max_rows": max(rows for rows, _ in version.pixels.values()),
                    "skymap_order": FINEST_ORDER,
                },
            ),
            (
                margin,
                margins,
                {
                    "catalog_name": margin.name,
                    "catalog_type": "margin",
                    "primary_catalog": main.name,
                    "margin_threshold": MARGIN_ARCSEC,
                },
            ),
        ):
            info = PartitionInfo.from_healpix(pixels)
            rows = 0
            if pixels:
                rows = write_parquet_metadata(path)
                more["moc_sky_fraction"] = f"{info.calculate_fractional_coverage():0.5f}"
            else:
                for pointer in (paths.get_common_metadata_pointer(path), paths.get_parquet_metadata_pointer(path)):
                    pointer.parent.mkdir(parents=True, exist_ok=True)
                    pq.write_metadata(schema, pointer.path)
            info.write_to_file(paths.get_partition_info_pointer(path))
            order = max(pixel.order for pixel in pixels or version.pixels)
            self._write_properties(path, **{"total_rows": rows, "hats_order": int(order)} | about | more)
        write_skymap(self._sky_of(version), main)

    def _sky_of(self, version: Version) -> np.ndarray:
        """Count the rows by pixel of the finest division."""
        found = np.zeros(12 << 2 * FINEST_ORDER, dtype=np.int64)
        for path in sorted((self._place.index(version.number, self._rows.key) / INDEX_PATH).glob("*.parquet")):
            places = places_of(pq.read_table(path, columns=[PLACE], partitioning=None))
            found += histogram(places, np.ones(len(places), dtype=np.int64))
        return found

    def _write_properties(self, path: Path, **values: object) -> None:
        made = TableProperties.new_provenance_dict(path, builder=_builder())
        TableProperties(**{**made, **values}).to_properties_file(path)


def sync_tree(directory: Path) -> None:
    """Bring all that is new in a directory to the disk; what is shared with an earlier version is there."""
    for path in (directory, *directory.rglob("*")):
        if path.is_dir() or path.stat().st_nlink == 1:
            LOCAL.sync(path)


def _file_of(catalog: Path, pixel: HealpixPixel) -> Path:
    return Path(paths.pixel_catalog_file(catalog, pixel).path)


def _write_table(path: Path, table: pa.Table) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    options = file_io.get_parquet_write_table_kwargs(
        table.schema, write_table_kwargs={"compression_level": _ZSTD_LEVEL}
    )
    pq.write_table(table, path, **options)


def _share(source: Path, target: Path) -> None:
    """Give a file of one version to the next, without a copy where the file system can do that."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def _builder() -> str:
    return f"fink-dask v{version_of('fink-dask')}"


@contextmanager
def _without_remarks() -> Iterator[None]:
    """Keep the remarks of libraries away from the user; errors are still raised."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
