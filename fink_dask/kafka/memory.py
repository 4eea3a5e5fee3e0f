"""Memory that is used again: touching new pages costs more than filling them with what a batch holds."""

from __future__ import annotations

import weakref

import numpy as np
import numpy.typing as npt

_KEPT = 2


class Memory:
    """Pieces of memory for batches; a piece comes back when the last array that lies in it is gone.

    It may be shared by threads: every step is one operation on a list.
    """

    def __init__(self) -> None:
        self._spare: list[npt.NDArray[np.uint8]] = []

    def take(self, size: int) -> npt.NDArray[np.uint8]:
        """Return bytes of any content.

        Parameters
        ----------
        size : int
            How many.

        Returns
        -------
        numpy.ndarray
            A view: whoever has it, or an Arrow buffer of it, has the memory. A slice that numpy makes of it does not
            keep it.
        """
        try:
            piece = self._spare.pop()
        except IndexError:
            piece = np.empty(0, np.uint8)
        # Batches differ a little; what is far too large is not kept for small ones.
        if not size <= len(piece) <= 4 * size + 2**20:
            # numpy asks for huge pages where it is large.
            piece = np.empty(size + size // 8, np.uint8)
        view = piece[:size]
        weakref.finalize(view, self._give_back, piece).atexit = False
        return view

    def _give_back(self, piece: npt.NDArray[np.uint8]) -> None:
        if len(self._spare) < _KEPT:
            self._spare.append(piece)
