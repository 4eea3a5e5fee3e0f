"""What was measured over links, in Markdown."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from statistics import median
from textwrap import fill
from typing import Any

from benchmarks.link_rows import ROWS, Row

LINKS = "benchmarks-links.json"
#: What must be reached: so many times the reference, and so many seconds.
BOUND = (1.3, 6.0)
_STAR = r" \*"
_SHARED = """
Other programs ran on these cores meanwhile, and fink-client was measured in the hour before, so that rows of more than
100 Mbit/s, which cores bound, say less than others."""
_HEAD = (
    *("link", "consumers", "alerts", "drain, s", "loopback, s", "fink-dask, s", "over reference", "bound"),
    *("bytes over stored", "connections", "fink-client, s", "its bytes over stored"),
)


def links_section(found: Mapping[str, Any]) -> str:
    """Lay out what was measured.

    `found`: what `python -m benchmarks.links` keeps; empty if nothing was measured.
    Returns: A section, or nothing.
    """
    if not found:
        return ""
    measured = {(one["row"], one["contestant"]): one for one in found["measured"]}
    rows = [list(_cells(row, measured)) for row in ROWS if (row.name, "fink-dask") in measured]
    lines = [_HEAD, ["---", *["---:"] * (len(_HEAD) - 1)], *rows]
    text = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    run = found["run"]
    shared = bool(run.get("is_shared"))
    return f"""
## Slow, far and lossy links

`python -m benchmarks.links` measures this section: links of a given rate (which all connections share, each way), round
trip and loss, written down in `benchmarks/link_rows.py` before they were measured. One run of each contestant, by
turns, through the same link (`{run["id"]}`, {run["date"]}, commit {run["commit"]}). Kafka and the link run on the same
{run["cores"]} cores. The reference is the longer of what a bare `consume()` drain with as many consumers takes over the
link, and what fink-dask takes without it; the bound is {BOUND[0]:g} times that and {BOUND[1]:g} s. Bytes are those of
fetch responses over the stored batches; in rows with a star, all that TCP sent, what was sent again included. Kafka
keeps batches of 16 kB, as Spark's producer makes them, or of one alert that is larger; of 1 MB in the rows that were
reported: Kafka cuts the last batch of a response, and a client throws it away and fetches it again.{_SHARED * shared}

{text}

{_against_peer(measured)}

\\* Carried by a switch in user space between network namespaces, where packets are lost, a handshake takes its round
trip, and TCP's windows grow (reno) up to Kafka's send buffer of 100 kB, which is what one connection gets in a round
trip; all other rows by a proxy, which delays the first bytes of a connection instead.
"""


def _against_peer(measured: Mapping[tuple[str, str], Mapping[str, Any]]) -> str:
    """Say how the two compare where both delivered everything, and where one did not."""
    pairs = [(measured[name, "fink-dask"], peer) for (name, who), peer in measured.items() if who == "fink-client"]
    if not pairs:
        return ""
    ratios = [mine["seconds"] / peer["seconds"] for mine, peer in pairs if _is_good(mine) and _is_good(peer)]
    words = f"fink-client delivered everything in {len(ratios)} of {len(pairs)} rows"
    if ratios:
        words += f"; there, fink-dask took {median(ratios):.2f} of its time in the median, {max(ratios):.2f} at most"
    words += (
        ". It was stopped after five minutes (`limit`). With its default time-out of 10 s it ends without an error "
    )
    return fill(f"{words}where that is not enough to connect, and has nothing (`incomplete`).", 120)


def _cells(row: Row, measured: Mapping[tuple[str, str], Mapping[str, Any]]) -> Iterator[str]:
    mine = measured[row.name, "fink-dask"]
    drain, loopback, peer = (measured.get((row.name, who)) for who in ("drain", "loopback", "fink-client"))
    yield f"{row.name}: {row.line}{_STAR if row.has_packets else ''}"
    yield str(row.consumers)
    yield f"{row.alerts:,} {row.kind.value}"
    for one in (drain, loopback, mine):
        yield _seconds(one)
    reference = _reference([one for one in (drain, loopback) if one is not None and one["right"]])
    if reference is None or not _is_good(mine):
        yield from ("", "no" if reference is not None else "")
    else:
        yield f"{mine['seconds'] / reference:.2f}"
        yield "yes" if mine["seconds"] <= BOUND[0] * reference + BOUND[1] else "no"
    yield f"{mine['moved_bytes'] / mine['stored_bytes']:.2f}"
    yield str(mine["connections"])
    yield _seconds(peer)
    yield "" if peer is None else f"{peer['moved_bytes'] / peer['stored_bytes']:.2f}"


def _reference(measured: Sequence[Mapping[str, Any]]) -> float | None:
    """Return the longest of the times, if there is the drain's and our own."""
    return max(float(one["seconds"]) for one in measured) if len(measured) == 2 else None


def _is_good(one: Mapping[str, Any]) -> bool:
    return one["ended"] == "well" and bool(one["right"])


def _seconds(one: Mapping[str, Any] | None) -> str:
    if one is None:
        return ""
    if _is_good(one):
        return f"{one['seconds']:.1f}"
    return f"{one['ended'] if one['ended'] != 'well' else 'incomplete'} after {one['seconds']:.0f}"
