"""Loaded by every Python that has this directory on its path: its clock jumps two days ahead, and a day back later."""

import time

_real = time.time
_began = time.monotonic()
_DAY_S = 86_400.0


def _jumping() -> float:
    lived = time.monotonic() - _began
    return _real() + (0.0 if lived < 0.8 else 2 * _DAY_S if lived < 2.0 else -_DAY_S)


time.time = _jumping
