"""What a broker calls gone may come back: one that has just started may not know its topics yet."""

from __future__ import annotations

import time

#: Seconds for which a finding has to last before it is believed.
SURE_S = 10.0


class Suspicion:
    """Remembers since when something looks wrong."""

    def __init__(self) -> None:
        self._finding: str | None = None
        self._since = 0.0

    def confirms(self, finding: str) -> bool:
        """Take a finding; True when it has been the same for long enough to be believed.

        Parameters
        ----------
        finding : str
            A word for what looks wrong, and not a sentence about it: that may hold a number, which changes with what
            a topic holds.
        """
        now = time.monotonic()
        if finding != self._finding:
            self._finding, self._since = finding, now
        return now - self._since > SURE_S

    def clear(self) -> None:
        """Forget it: all is well, or something else has happened."""
        self._finding = None
