"""What the ledgers of several topics say, as that of one dataset, and what each of them says."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import fields, replace
from itertools import count
from pathlib import Path

from fink_dask.ledger.outdir import total_of
from fink_dask.ledger.summary import Progress
from fink_dask.report.facts import Facts, Partition, Reasons, pace_of


def facts_of_season(outdir: Path, topics: Sequence[Facts]) -> Facts:
    """Put together what is known of several topics.

    `topics`: what is known of each; at least one.
    Returns: the partition columns and the condition are those of all topics, or none if these differ; partitions of the
    same number are counted together.
    """
    first, *others = (each.identity for each in topics)
    identity = replace(
        first,
        partitionby=first.partitionby if all(each.partitionby == first.partitionby for each in others) else (),
        where=first.where if all(each.where == first.where for each in others) else None,
    )
    commits = [commit for each in topics for commit in each.commits]
    runs = [run for each in topics for run in each.runs]
    planned = [at for each in topics for at in each.planned]
    return Facts(
        outdir=outdir,
        identity=identity,
        progress=_progress([each.progress for each in topics]),
        is_running=any(each.is_running for each in topics),
        is_compacted=any(each.is_compacted for each in topics),
        damaged=sum(each.damaged for each in topics),
        markers=[marker for each in topics for marker in each.markers],
        partitions=_partitions([partition for each in topics for partition in each.partitions]),
        commits=commits,
        planned=planned,
        pace=pace_of(commits, planned, runs),
        runs=runs,
        reasons=_reasons([each.reasons for each in topics]),
        losses=sorted((loss for each in topics for loss in each.losses), key=lambda loss: loss.start - loss.end),
        topics=tuple(topics),
    )


def _progress(found: Sequence[Progress]) -> Progress:
    number = count()  # partitions of several topics have the same numbers
    return Progress(
        summary=total_of([each.summary for each in found]),
        planned_ranges=sum(each.planned_ranges for each in found),
        planned_offsets=sum(each.planned_offsets for each in found),
        estimated_bytes=sum(each.estimated_bytes for each in found),
        missing={next(number): intervals for each in found for intervals in each.missing.values()},
        lost={next(number): intervals for each in found for intervals in each.lost.values()},
        newest_ms=max((each.newest_ms for each in found if each.newest_ms is not None), default=None),
    )


def _partitions(found: Sequence[Partition]) -> list[Partition]:
    sums: dict[int, Partition] = {}
    for each in found:
        whole = sums.setdefault(each.number, Partition(each.number))
        for part in fields(Partition):
            if part.name != "number":
                setattr(whole, part.name, getattr(whole, part.name) + getattr(each, part.name))
    return [sums[number] for number in sorted(sums)]


def _reasons(found: Sequence[Reasons]) -> Reasons:
    return Reasons(
        counts=sum((each.counts for each in found), start=Counter()),
        examples={reason: place for each in reversed(found) for reason, place in each.examples.items()},
        looked_at=sum(each.looked_at for each in found),
        problem=next((each.problem for each in found if each.problem is not None), None),
    )
