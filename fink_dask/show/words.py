"""Names, durations, bytes and lags in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from rich.filesize import decimal

from fink_dask.units import duration_words

if TYPE_CHECKING:
    from fink_dask.ledger.progress import Lag
    from fink_dask.transfers.forecast import Forecast


def forecast_words(forecast: Forecast) -> str:
    """Say how much work a run has: "about 66.8 MB in 3 s, bound by the cores, 12.1 GB of disk free"."""
    if forecast.raw_bytes is None or forecast.seconds is None:
        words = "how much and how long is not known, as no alert came in time"
    else:
        words = f"about {decimal(forecast.raw_bytes)} in {duration_words(max(1, forecast.seconds))}, {forecast.reason}"
    return words if forecast.free_bytes is None else f"{words}, {decimal(forecast.free_bytes)} of disk free"


def lag_words(lag: Lag) -> str:
    """Say how far a dataset is behind: "lag 1,200 (most in partition 3: 700), newest alert 4 s old"."""
    return ", ".join(lag_parts({"": lag}))


def lags_words(lags: Mapping[str, Lag]) -> str:
    """Say how far the datasets of topics are behind: "lag 1,200, newest alert 4 s old, most in TOPIC: 700"."""
    return ", ".join(lag_parts(lags))


def lag_parts(lags: Mapping[str, Lag]) -> list[str]:
    """Say the same in parts, the most important first."""
    topic, worst = max(lags.items(), key=lambda item: item[1].total)
    partition, most = worst.worst
    where = f" (most in partition {partition}: {most:,})" if len(lags) == 1 and most else ""
    words = [f"lag {sum(lag.total for lag in lags.values()):,}{where}"]
    ages = [lag.freshness_s for lag in lags.values() if lag.freshness_s is not None]
    if ages:
        words.append(f"newest alert {duration_words(min(ages))} old")
    if len(lags) > 1 and worst.total:  # last, as topic names are long and a terminal may be narrow
        words.append(f"most in {topic}: {worst.total:,}")
    return words
