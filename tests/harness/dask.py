"""Dask schedulers that tests start as processes of their own."""

from __future__ import annotations

from distributed import Client
from distributed.security import Security


def answers(address: str, workers: int = 1, security: Security | None = None) -> bool:
    """Tell whether a scheduler answers, and has that many workers."""
    try:
        with Client(address, timeout=2, security=security) as client:
            client.wait_for_workers(workers, timeout=20)
    except (OSError, TimeoutError):
        return False
    return True
