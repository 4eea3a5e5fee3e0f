"""Write the lines that read a dataset into the pages that show them, for each kind: ``python docs/make_reading.py``.

They are those of ``fink-dask read``, and a few more. A page says where, ``<!-- for each kind: polars -->``, and where
they end, ``<!-- end -->``.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa

from fink_dask.avro.schema import parse_schema
from fink_dask.dataset.formats import KAFKA_FIELDS
from fink_dask.demo.alerts import AlertKind, recorded_schema
from fink_dask.report.reading import Reading, find_reading, leaf, reading_lines

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *(ROOT / "docs" / f"{name}.md" for name in ("colleagues", "hats", "python", "readers"))]
#: What the pages call a kind; its name is in the tag, for the tests.
SUMMARIES = {
    AlertKind.ZTF_LIGHT: "ZTF, light packets",
    AlertKind.ZTF_FULL: "ZTF, full packets",
    AlertKind.LSST_LIGHT: "LSST, light packets",
    AlertKind.LSST_FULL: "LSST, full packets",
}
_KEYS = ("year", "month", "day")
_REGION = re.compile(r"(<!-- for each kind: ([\w-]+) -->\n)(.*?)(<!-- end -->)", re.DOTALL)


def reading_of(kind: AlertKind) -> Reading:
    """Say what the pages read: the dataset ``alerts`` of alerts of a kind, partitioned by time."""
    columns = [field for field in parse_schema(recorded_schema(kind)).arrow if field.name not in _KEYS]
    keys = [pa.field(name, pa.int32()) for name in _KEYS]
    return find_reading("alerts", pa.schema([*columns, *KAFKA_FIELDS, *keys]))


def lsdb_lines(reading: Reading) -> str:
    """Write the lines that open the catalog of the dataset with LSDB."""
    name, value = leaf(reading.object_id), leaf(reading.value)
    shown = [leaf(path) for path in reading.columns if leaf(path) in {name, value} or path not in {reading.label}]
    names = ", ".join(f'"{each}"' for each in shown)
    of_class = "pred_main_label_classifier == 11" if reading.is_flux else "finkclass == 'Unknown'"
    movers = """

# What moves belongs to no object, and has a catalog of its own: a row an alert.
print(lsdb.open_catalog("catalog/movers").head(2)[["designation", "ra", "dec"]])"""
    return f"""\
import lsdb

catalog = lsdb.open_catalog("catalog")
some = catalog.head(1).iloc[0]
one = catalog.id_search(values={{"{name}": some["{name}"]}}).compute()
print(one[["{name}", "ra", "dec", "alerts"]])
cone = catalog.cone_search(ra=some["ra"], dec=some["dec"], radius_arcsec=3600).compute()
names = [{names}]
print(cone.explode("lightcurve")[names])
print(catalog.query("{of_class}").compute())

# A query of light curves keeps objects of whose light curve nothing is left.
bright = catalog.query("lightcurve.{reading.bright(value)}").compute().dropna(subset=["lightcurve"])
print(bright){movers if reading.is_flux else ""}
"""


def topic_lines(reading: Reading) -> str:
    """Write the lines that read a topic without a dataset."""
    survey = "lsst" if reading.is_flux else "ztf"
    record = reading.value.rpartition(".")[0]
    columns = ", ".join(f'"{path}"' for path in (reading.object_id, reading.value))
    label = leaf(reading.label)
    counted = f'alerts.groupby("{label}").size().compute()'
    if label != reading.label:
        counted = f'alerts["{reading.label.rpartition(".")[0]}"].compute().struct.field("{label}").value_counts()'
    shown = f'print(bright["{record}"].struct.explode())' if record else "print(bright)"
    return f"""\
import fink_dask

topic = "ftransfer_{survey}_2026-02-24_123456"
alerts = fink_dask.read_topic(topic)
print({counted})

columns = [{columns}]
bright = fink_dask.read_topic(topic, columns=columns, where="{reading.bright(reading.value)}").compute()
{shown}
"""


def csv_lines(reading: Reading) -> str:
    """Write the lines that make one flat table of a dataset."""
    opened = reading_lines(reading)["pyarrow"].partition("print(")[0]
    return f"""\
import pyarrow.csv
{opened}pyarrow.csv.write_csv(table, "alerts.csv")
"""


MORE: dict[str, Callable[[Reading], str]] = {"CSV": csv_lines, "LSDB": lsdb_lines, "read_topic": topic_lines}


def filled(page: str) -> str:
    """Return a page with the lines of each kind where it says so."""
    return _REGION.sub(lambda match: f"{match[1]}{_blocks(match[2])}{match[4]}", page)


def _blocks(name: str) -> str:
    parts = []
    for kind, summary in SUMMARIES.items():
        reading = reading_of(kind)
        lines = MORE[name](reading) if name in MORE else reading_lines(reading)[name]
        is_open = " open" if kind is AlertKind.ZTF_LIGHT else ""
        parts.append(
            f'<details class="{kind}"{is_open}><summary>{summary}</summary>\n\n```python\n{lines}```\n\n</details>\n'
        )
    return "".join(parts)


if __name__ == "__main__":
    for path in PAGES:
        path.write_text(filled(path.read_text(encoding="utf-8")), encoding="utf-8")
