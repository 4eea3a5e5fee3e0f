"""The page of a report: one self-contained HTML file."""

from __future__ import annotations

import base64
import hashlib
import math
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.resources import files
from typing import Any

import numpy as np
from bokeh.embed import components
from bokeh.resources import Resources
from jinja2 import Environment, StrictUndefined
from rich.filesize import decimal

from fink_dask.dataset.cutouts import png
from fink_dask.progress.profile import STAGE_COLOURS, STAGES
from fink_dask.report import charts
from fink_dask.report.charts import BANDS, PARTS
from fink_dask.report.facts import Facts
from fink_dask.report.panels import Counts, Panels, far_words, night_words, nights_shown
from fink_dask.units import pluralize, printable

#: The most characters of a text from outside, and of what fink-dask says itself, which ends with what to do.
_MOST, _MOST_SAID = 120, 1000
#: The most rows of a table.
_MAX_ROWS = 15
_MAX_TOPICS = 200
#: Up to this many alerts, each is a point on the map.
_POINTS = 2000
#: Pixels of the chart of the nights, and of a line of the list of classes beside it.
_NIGHTS_HEIGHT, _CLASS_HEIGHT = 260, 25
#: Marks our own pages, so that no other file is replaced.
GENERATOR = '<meta name="generator" content="fink-dask report">'
#: Where a page says which dataset it is of.
MARK = '<meta name="fink-dask-dataset" content="'
_STATES = {
    "complete": "every planned offset is in the dataset",
    "partial": "finished, without records that could not be decoded or that Kafka had removed",
    "interrupted": "offsets are missing; run the same transfer again to fetch them",
    "failed": "it ended with an error",
    "running": "a transfer is running",
}


_GONE = "{} of the dataset missing or changed; fink-dask verify lists, and fink-dask repair fetches again, what is"


def mark_of(facts: Facts) -> str:
    """Return what tells the reports of two datasets apart, and gives away neither name nor place."""
    topic = "" if facts.topics else facts.identity.topic
    return hashlib.sha256(f"{facts.outdir.name}/{topic}".encode(errors="surrogateescape")).hexdigest()[:16]


def render(facts: Facts, panels: Panels, outdir: str, version: str, made_at: datetime) -> str:
    """Write the page.

    `outdir`: the dataset, as the user wrote it.
    """
    figures: dict[str, Any] = {"partitions": charts.partitions(facts.partitions)}
    if facts.pace.seconds:
        figures["speed"] = charts.speed(facts.pace)
    density = None
    if panels.position_x is not None and panels.position_y is not None and panels.position_weights is not None:
        as_points = len(panels.position_x) <= _POINTS
        figures["sky"], density = charts.sky_map(
            panels.position_x, panels.position_y, panels.position_weights, as_points
        )
    if panels.magnitudes:
        figures["magnitudes"] = charts.magnitudes(panels.magnitudes, panels.magnitude_edges)
    if panels.nights is not None:
        days = nights_shown(panels.nights.values)
        counts = np.array([panels.nights.values[day] for day in days])
        height = max(_NIGHTS_HEIGHT, _CLASS_HEIGHT * len(_shares(panels.classes)))
        figures["nights"] = charts.nights(np.array(days, dtype=np.int64), counts, height)
    if facts.sizes:
        figures["sizes"] = charts.sizes(facts.sizes)
    for number, example in enumerate(panels.examples):
        if example.curve:
            figures[f"curve{number}"] = charts.light_curve(f"curve{number}", example)
    script, places = components(figures)
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    # Errors give the dataset's full path, which does not concern those to whom the page is sent.
    for name, most in (("outside", _MOST), ("said", _MOST_SAID)):
        environment.filters[name] = lambda text, most=most: printable(
            str(text).replace(str(facts.outdir), outdir), most
        )
    environment.filters |= {"size": _size, "count": _count, "counted": pluralize}
    template = environment.from_string(files("fink_dask.report").joinpath("page.html").read_text(encoding="utf-8"))
    summary = facts.completeness.summary
    return template.render(
        generator=GENERATOR,
        bokeh=Resources(mode="inline", components=["bokeh"]).render_js(),
        script=script,
        places=places,
        outdir=outdir,
        version=version,
        made_at=f"{made_at:%Y-%m-%d %H:%M} UTC",
        summary=summary,
        identity=facts.identity,
        state=facts.state,
        headline=_GONE.format(pluralize(facts.gone, "file")) if facts.gone else _STATES[facts.state],
        tiles=_tiles(facts, panels),
        facts=facts,
        began=_day_and_time(facts.pace.began),
        ended=_day_and_time(facts.pace.ended),
        density=density,
        classes=_shares(panels.classes),
        nights="" if panels.nights is None else night_words(panels.nights.values),
        far_nights="" if panels.nights is None else far_words(panels.nights.values),
        panels=panels,
        pictures=[_pictures(example.stamps) for example in panels.examples],
        stages=_stages(facts),
        curve_bands=[band for band in BANDS if any(band in example.curve for example in panels.examples)],
        has_limits=any(len(points.limits) for example in panels.examples for points in example.curve.values()),
        parts=PARTS,
        bands=BANDS,
        max_partitions=charts.MAX_PARTITIONS,
        max_rows=_MAX_ROWS,
        max_topics=_MAX_TOPICS,
        mark=mark_of(facts),
        sizes=sorted(facts.sizes),
        night_blue=charts.NIGHT_BLUE,
    )


def _tiles(facts: Facts, panels: Panels) -> list[tuple[str, str, str, bool]]:
    """List id, value, label, and whether it is bad news."""
    summary, completeness, pace = facts.completeness.summary, facts.completeness, facts.pace
    found = [("alerts", _count(summary.alerts), _noun(summary.alerts, "alert"), False)]
    if panels.nights is not None:
        nights = sum(day is not None for day in panels.nights.values)
        found.append(("nights-count", _count(nights), _noun(nights, "night"), False))
    found += [
        ("raw", _size(summary.raw_bytes), "read from Kafka", False),
        ("written", _size(summary.written_bytes), f"in {pluralize(summary.files, 'file')}", False),
    ]
    if pace.seconds:
        found.append(("seconds", _duration(pace.seconds), "working time", False))
    read = summary.transferred + summary.filtered
    if pace.seconds and read:
        found.append(("rate", _count(read / pace.seconds), "alerts/s", False))
    for name, value, words, is_bad in (
        ("filtered", summary.filtered, "filtered", False),
        ("duplicates", summary.duplicates, _noun(summary.duplicates, "duplicate"), False),
        ("handed-over", summary.handed_over, "handed over", False),
        ("quarantined", summary.quarantined, "in quarantine", True),
        ("lost", summary.lost, "lost to retention", True),
        (
            "missing",
            completeness.missing_offsets,
            f"{_noun(completeness.missing_offsets, 'offset')} missing",
            not facts.is_running,
        ),
        ("damaged", facts.damaged, _noun(facts.damaged, "damaged marker"), True),
    ):
        if value:
            found.append((name, _count(value), words, is_bad))
    return found


def _noun(number: int, noun: str) -> str:
    """Return the noun for a number that stands above it, singular or plural."""
    return pluralize(number, noun).partition(" ")[2]


def _stages(facts: Facts) -> list[tuple[str, float, float, str]]:
    """List stage, seconds, percent and colour, over all runs whose profiles are known."""
    seconds = {stage: sum(run.profile.stage_seconds[stage] for run in facts.runs) for stage in STAGES}
    whole = sum(seconds.values())
    if not whole:
        return []
    return [(stage, seconds[stage], 100 * seconds[stage] / whole, colour) for stage, colour in STAGE_COLOURS.items()]


def _shares(counts: Counts | None) -> list[tuple[str, float, float]]:
    """List classes, their numbers of alerts, and the lengths of their bars in percent; small classes together."""
    if counts is None:
        return []
    ordered = sorted(counts.values.items(), key=lambda item: -item[1])
    most = ordered[0][1] if ordered else 1
    found = [(_class_name(name), count, 100 * count / most) for name, count in ordered]
    rest = sum(count for _, count, _ in found[_MAX_ROWS:])
    if rest:
        others = pluralize(len(found) - _MAX_ROWS, "other")
        return [*found[:_MAX_ROWS], (others, rest, min(100.0, 100 * rest / most))]
    return found


def _class_name(name: Any) -> str:
    """Name a class, even one that is null or blank."""
    return "no class" if name is None else str(name) if str(name).strip() else "(empty)"


def _pictures(stamps: Mapping[str, Any]) -> list[tuple[str, str | None]]:
    return [
        (shown, None if image is None else f"data:image/png;base64,{base64.b64encode(png(image)).decode()}")
        for shown, image in stamps.items()
    ]


def _size(value: float) -> str:
    return decimal(int(value))


def _count(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 or value == int(value) else f"{value:.1f}"


def _day_and_time(seconds: float | None) -> str:
    return "" if seconds is None else f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M} UTC"


def _duration(seconds: float) -> str:
    """Say a duration in its two largest units."""
    if not math.isfinite(seconds) or seconds < 60:
        return f"{seconds:.1f} s"
    for size, unit, smaller, small_unit in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if seconds >= size:
            return f"{seconds // size:.0f} {unit} {seconds % size // smaller:.0f} {small_unit}"
    return ""
