"""How long an absent broker is waited for, and what the user is told."""

from __future__ import annotations

from collections.abc import Callable

from fink_dask.errors import BrokerUnavailableError
from fink_dask.transfers.events import Note, Observer


class Patience:
    """Waits for Kafka.

    Parameters
    ----------
    limit_s : float
        Seconds that it may be away.
    observe : callable
        Takes the events.
    excuse : callable
        Is told the seconds of an absence, once it is over.
    """

    def __init__(self, limit_s: float, observe: Observer, excuse: Callable[[float], None]) -> None:
        self._limit_s = limit_s
        self._observe = observe
        self._excuse = excuse
        self._away_since: float | None = None
        self._heard: float | None = None

    def wait(self, error: BrokerUnavailableError, now: float) -> None:
        """Note that Kafka is away.

        Raises
        ------
        BrokerUnavailableError
            If it has been away for too long.
        """
        if self._away_since is None:
            # Since it last answered: the question itself took some seconds to fail.
            self._away_since = now if self._heard is None else self._heard
            self._observe(Note(f"{error}; waiting for it, up to {self._limit_s:g} s", warning=True))
        elif now - self._away_since > self._limit_s:
            raise BrokerUnavailableError(
                f"Kafka was away for {self._limit_s:g} s ({error.message}); what is committed is safe, and the same "
                "command goes on from there",
                error.topic,
            )

    def end(self, now: float) -> None:
        """Note that Kafka answers."""
        self._heard = now
        if self._away_since is not None:
            away_s, self._away_since = now - self._away_since, None
            self._excuse(away_s)
            self._observe(Note(f"Kafka answers again, after {away_s:.0f} s"))
