"""Memory that is reused: touching new pages costs more than filling them with a batch."""

from __future__ import annotations

import weakref

import numpy as np
import numpy.typing as npt

_KEPT = 2


class Memory:
    """Pieces of memory for batches; a piece is free again when the last array in it is gone.

    It may be shared by threads: every step is one operation on a list.
    """

    def __init__(self) -> None:
        self._spare: list[npt.NDArray[np.uint8]] = []

    def take(self, size: int) -> npt.NDArray[np.uint8]:
        """Return memory of any content.

        Parameters
        ----------
        size : int
            How many bytes.

        Returns
        -------
        numpy.ndarray
            A view, which keeps the memory as long as it lives, or an Arrow buffer of it. A slice that numpy makes of it
            does not.
        """
        try:
            piece = self._spare.pop()
        except IndexError:
            piece = np.empty(0, np.uint8)
        # Batches differ a little in size; a piece that is far too large is not kept for small ones.
        if not size <= len(piece) <= 4 * size + 2**20:
            # numpy asks for huge pages where a piece is large.
            piece = np.empty(size + size // 8, np.uint8)
        view = piece[:size]
        weakref.finalize(view, self._give_back, piece).atexit = False
        return view

    def _give_back(self, piece: npt.NDArray[np.uint8]) -> None:
        if len(self._spare) < _KEPT:
            self._spare.append(piece)
