"""What a report shows of the alerts themselves, if the dataset has the columns for it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.dataset as ds

from fink_dask.dataset.cutouts import HINT, can_read_stamps
from fink_dask.dataset.formats import why_unreadable
from fink_dask.dataset.partitioning import NO_DAY, NULL_KEY, days_since_1970
from fink_dask.dataset.read import open_dataset, open_known
from fink_dask.dataset.surveys import CLASSES, Fields, find_fields
from fink_dask.errors import FinkDaskError
from fink_dask.ledger.outdir import find_ledger
from fink_dask.ledger.summary import absent_words
from fink_dask.report.examples import OTHER_BAND, Example, band_name, find_examples, find_objects
from fink_dask.report.facts import Facts
from fink_dask.report.objects import show_objects
from fink_dask.report.sample import Piece, Sample, choose_pieces, read_sample
from fink_dask.report.sky import project
from fink_dask.store.location import store_of
from fink_dask.units import pluralize

_DATE_PARTS = ("year", "month", "day")
_EPOCH = date(1970, 1, 1)
#: An axis of this many nights still shows each of them.
_READABLE = 400
#: A longer one is cut if that hides at least this share of its length, and at most this share of the alerts.
_FAR, _FEW = 0.9, 0.05
#: Up to this many nights are named one by one.
_NAMED = 3

Floats = npt.NDArray[np.float64]

#: The AB magnitude of a flux of 1 nJy.
_ZERO_POINT = 31.4
#: Magnitudes of a histogram, its bins, and percent of the alerts that may lie beyond either end of it.
_MAGNITUDES, _BIN, _BEYOND = (0.0, 40.0), 0.25, 0.02


def nights_of(keys: Counter[tuple[tuple[str, str], ...]]) -> dict[int | None, float]:
    """Count the alerts of each day since 1970 from the names of directories; None stands for no date."""
    found: dict[int | None, float] = {}
    for levels, count in keys.items():
        named = dict(levels)
        try:
            year, month, day = (int(named[part]) for part in _DATE_PARTS)
            number = date(year, month, day).toordinal() - _EPOCH.toordinal()
        except (KeyError, ValueError):
            found[None] = found.get(None, 0) + count
        else:
            found[number] = found.get(number, 0) + count
    return found


def nights_shown(counts: Mapping[int | None, float]) -> list[int]:
    """Choose the nights for the axis to show: all, unless a few wrong times would squeeze the others into needles.

    `counts`: alerts of each day since 1970; None stands for no time.
    Returns: all days; or, if that is a small part of the whole, those in and near the shortest period that holds nearly
    all alerts.
    """
    days = sorted(day for day in counts if day is not None)
    if not days or days[-1] - days[0] < _READABLE:
        return days
    sums = [0.0, *accumulate(counts[day] for day in days)]
    most, first = (1 - _FEW) * sums[-1], 0
    length, begin = days[-1] - days[0], days[0]
    for last, day in enumerate(days):
        while sums[last + 1] - sums[first + 1] >= most:
            first += 1
        if sums[last + 1] - sums[first] >= most and day - days[first] < length:
            length, begin = day - days[first], days[first]
    near = max(length, 1)
    shown = [day for day in days if begin - near <= day <= begin + length + near]
    return shown if shown[-1] - shown[0] < (1 - _FAR) * (days[-1] - days[0]) else days


def night_words(counts: Mapping[int | None, float]) -> str:
    """Say which nights these are; then name those that are not shown, and alerts without a time."""
    shown = nights_shown(counts)
    words = " to ".join(dict.fromkeys(_name(day) for day in shown[:1] + shown[-1:]))
    return "; ".join(each for each in (words, far_words(counts), _timeless(counts.get(None, 0))) if each)


def far_words(counts: Mapping[int | None, float]) -> str:
    """Say what is not shown: how many alerts, and on which nights; empty if everything is shown."""
    shown = set(nights_shown(counts))
    far = sorted(day for day in counts if day is not None and day not in shown)
    if len(far) > _NAMED:
        alerts = pluralize(round(sum(counts[day] for day in far)), "alert")
        return f"{alerts} on {pluralize(len(far), 'other night')} between {_name(far[0])} and {_name(far[-1])}"
    return ", ".join(f"{pluralize(round(counts[day]), 'alert')} on {_name(day)}" for day in far)


def _timeless(count: float) -> str:
    return f"{pluralize(round(count), 'alert')} without a time" if count else ""


def _name(day: int) -> str:
    return str(_EPOCH + timedelta(days=int(day)))


@dataclass(frozen=True)
class Counts:
    """How many alerts have each value; ``is_exact`` if they were counted, not estimated."""

    values: Mapping[Any, float]
    is_exact: bool


@dataclass
class Panels:
    """What there is to show, and what is left out."""

    #: nights, classes: alerts of each day since 1970, and of each class; the key None stands for no time and for no
    #: class.
    nights: Counts | None = None
    classes: Counts | None = None
    #: position_x, position_y, position_weights: places on the map, and how many alerts each stands for.
    position_x: Floats | None = None
    position_y: Floats | None = None
    position_weights: Floats | None = None
    #: Alerts of each band by magnitude, between `magnitude_edges`.
    magnitudes: dict[str, Floats] = field(default_factory=dict)
    magnitude_edges: Floats = field(default_factory=lambda: np.empty(0))
    #: Alerts whose magnitude lies beyond them.
    magnitudes_beyond: float = 0.0
    examples: list[Example] = field(default_factory=list)
    #: Whether they are objects that were asked for.
    is_chosen: bool = False
    #: Where to find all this; None if the dataset can't be read.
    fields: Fields | None = None
    #: Rows that were read; 0 if none were needed.
    sampled: int = 0
    #: Whether these are all rows.
    is_whole: bool = False
    #: Files that could not be read.
    unread: int = 0
    #: Why each missing panel is left out, by its name.
    left_out: dict[str, str] = field(default_factory=dict)


def find_panels(facts: Facts, objects: Sequence[str] = ()) -> Panels:
    """Read what to show; what can't be read, or does not exist, is left out with a reason.

    `facts`: what the ledger of the dataset knows, or those of a season.
    `objects`: show these instead of a few alerts.
    Raises SettingsError if one of the `objects` is not there, or has no light curve.
    """
    panels = Panels()
    if objects:
        panels.examples, panels.is_chosen = show_objects(facts.outdir, objects, can_read_stamps()), True
    is_alike = len({each.identity.partitionby for each in facts.each}) == 1
    keys = facts.keys if is_alike else Counter()
    if "time" in facts.identity.partitionby:
        panels.nights = Counts(nights_of(keys), is_exact=True)
    panels.classes = _classes_of(keys)
    try:
        dataset = _open(facts)
        rows_of = {
            f"{store_of(each.outdir).filesystem(each.outdir)[1]}/{file.path}": file.all_rows
            for each in facts.each
            for marker in each.markers
            for file in marker.files
        }
        pieces = choose_pieces(dataset, rows_of)
        if pieces:
            panels.fields = find_fields(dataset.schema)
            _read(facts.outdir, dataset, pieces, panels, facts.completeness.summary.alerts)
            return panels
        words = f"the dataset has no alerts{absent_words(facts.completeness.summary)}"
    except FinkDaskError as error:
        words = str(error)
    except (OSError, pa.ArrowException) as error:
        words = f"the dataset can't be read: {why_unreadable(error)}"
    shown = {
        "positions": panels.position_x is not None,
        "magnitudes": bool(panels.magnitudes),
        "nights": panels.nights is not None,
        "classes": panels.classes is not None,
        "examples": panels.is_chosen,
    }
    panels.left_out = {name: words for name, is_there in shown.items() if not is_there} | panels.left_out
    return panels


def _open(facts: Facts) -> ds.Dataset:
    """Open the dataset; its files were looked at a moment ago, unless they change, or something is said to be wrong."""
    if facts.is_running or facts.gone or facts.damaged:
        return open_dataset(facts.outdir)
    return open_known(facts.outdir, [(find_ledger(each.outdir), each.identity, each.markers) for each in facts.each])


def _read(outdir: Path, dataset: ds.Dataset, pieces: list[Piece], panels: Panels, of: int) -> None:
    fields = panels.fields
    assert fields is not None
    wanted = {"ra", "dec", "value", "band"}
    wanted |= set() if panels.nights else {"time"}
    is_light = not fields.history and not fields.cutouts
    if is_light:
        wanted |= {"object", "source", "time", "error"}
    paths = {role: path for role, path in fields.paths.items() if role in wanted}
    # Which of them has values is known once they are read.
    paths |= {path: path for path in fields.classes}
    sample = read_sample(outdir, dataset, pieces, paths, of) if paths else None
    if sample is not None:
        fields = panels.fields = _with_class(fields, sample)
    if sample is not None:
        panels.sampled, panels.unread = sample.table.num_rows, sample.unread
        panels.is_whole = panels.sampled >= of
    _place(panels, fields, sample)
    _measure(panels, fields, sample)
    if panels.nights is None:
        if sample is not None and fields.has("time"):
            counts = sample.counts(pa.chunked_array([_days(sample, fields)]))
            panels.nights = Counts(
                {None if day == NO_DAY else day: count for day, count in counts.items()}, panels.is_whole
            )
        else:
            panels.left_out["nights"] = f"the dataset has no {fields.survey.names['time']}"
    if panels.classes is None:
        panels.classes = _count_classes(fields, sample, panels)
    if panels.is_chosen:
        return
    if is_light:
        _show_objects(panels, fields, sample)
    else:
        _show_alerts(panels, fields, dataset, pieces)


def _count_classes(fields: Fields, sample: Sample | None, panels: Panels) -> Counts | None:
    if sample is None or not fields.has("class"):
        panels.left_out["classes"] = f"the dataset has none of {', '.join(CLASSES)}"
        return None
    counted = sample.counts(sample.table[fields.paths["class"]])
    named = {value if value is None else fields.class_name(value): count for value, count in counted.items()}
    return Counts(named, panels.is_whole)


def _show_objects(panels: Panels, fields: Fields, sample: Sample | None) -> None:
    if sample is not None:
        columns = {name: sample.table[name] for name in sample.table.column_names}
        columns |= {"class": sample.table[fields.paths["class"]]} if fields.has("class") else {}
        panels.examples = find_objects(pa.table(columns), fields)
    if not panels.examples:
        panels.left_out["examples"] = (
            f"the dataset has neither cutouts, {fields.survey.history}, nor objects with time and brightness"
        )


def _show_alerts(panels: Panels, fields: Fields, dataset: ds.Dataset, pieces: list[Piece]) -> None:
    if fields.cutouts and not can_read_stamps():
        panels.left_out["cutouts"] = f"astropy and Pillow are not installed: {HINT} brings them"
    elif not fields.cutouts:
        panels.left_out["cutouts"] = "the dataset has none"
    if not fields.has("time", "value") or not fields.history:
        panels.left_out["light curves"] = f"the dataset has no {fields.survey.history} with time and brightness"
    panels.examples = find_examples(dataset, pieces, fields, "cutouts" not in panels.left_out)


def _with_class(fields: Fields, sample: Sample) -> Fields:
    """Choose the first column of classes that has any, or the first if none has."""
    known = [path for path in fields.classes if sample.table[path].null_count < sample.table.num_rows]
    chosen = next(iter(known or fields.classes), None)
    return fields if chosen is None else fields.of_class(chosen)


def _place(panels: Panels, fields: Fields, sample: Sample | None) -> None:
    if sample is None or not fields.has("ra", "dec"):
        panels.left_out["positions"] = _lacking(fields, {"ra": "ra", "dec": "dec"})
        return
    ra, dec = sample.numbers("ra"), sample.numbers("dec")
    is_place = (ra >= 0) & (ra <= 360) & (np.abs(dec) <= 90)
    if not is_place.any():
        panels.left_out["positions"] = "no alert has a position"
        return
    panels.position_x, panels.position_y = project(ra[is_place], dec[is_place])
    panels.position_weights = sample.weights[is_place]


def _measure(panels: Panels, fields: Fields, sample: Sample | None) -> None:
    if sample is None or not fields.has("value", "band"):
        panels.left_out["magnitudes"] = _lacking(
            fields, {role: fields.survey.names[role] for role in ("value", "band")}
        )
        return
    found = sample.numbers("value")
    if fields.survey.is_flux:
        with np.errstate(divide="ignore", invalid="ignore"):
            found = np.where(found > 0, _ZERO_POINT - 2.5 * np.log10(found), np.nan)
    least, most = _MAGNITUDES
    is_one = (found > least) & (found < most)
    if not is_one.any():
        panels.left_out["magnitudes"] = "no alert has a usable brightness"
        return
    low, high = np.percentile(found[is_one], (_BEYOND, 100 - _BEYOND))
    edges = np.arange(np.floor(low / _BIN), np.ceil(high / _BIN) + 1) * _BIN
    edges = edges if len(edges) > 1 else np.array([edges[0], edges[0] + _BIN])
    encoded = sample.table["band"].combine_chunks().dictionary_encode(null_encoding="encode")
    codes = encoded.indices.to_numpy(zero_copy_only=False)
    bands = [band_name(fields, band) for band in encoded.dictionary.to_pylist()]
    ordered: list[str] = [*fields.survey.bands.values(), OTHER_BAND]
    for band in ordered:
        chosen = is_one & np.isin(codes, [code for code, each in enumerate(bands) if each == band])
        drawn = np.histogram(found[chosen], edges, weights=sample.weights[chosen])[0]
        if drawn.any():  # else all of its alerts are beyond the edges
            panels.magnitudes[band] = drawn
    panels.magnitude_edges = edges
    is_beyond = ~np.isnan(found) & ((found < edges[0]) | (found > edges[-1]))
    panels.magnitudes_beyond = float(sample.weights[is_beyond].sum())


def _lacking(fields: Fields, wanted: Mapping[str, str]) -> str:
    """Say which of these columns are not there."""
    missing = [name for role, name in wanted.items() if not fields.has(role)]
    return f"the dataset has no {' and no '.join(missing)}"


def _days(sample: Sample, fields: Fields) -> pa.Array:
    return pa.array(days_since_1970(sample.numbers("time"), fields.survey.scale))


def _classes_of(keys: Counter[tuple[tuple[str, str], ...]]) -> Counts | None:
    """Count alerts by class, from the names of the directories."""
    columns = {column for levels in keys for column, _ in levels}
    name = next((name for name in CLASSES if name in columns), None)
    if name is None:
        return None
    found: Counter[str | None] = Counter()
    for levels, count in keys.items():
        value = dict(levels).get(name, NULL_KEY)
        found[None if value == NULL_KEY else value] += count
    return Counts(found, is_exact=True)
