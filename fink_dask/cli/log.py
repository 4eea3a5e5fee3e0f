"""Where the log goes: nowhere, unless the user asks."""

from __future__ import annotations

import logging


def log_to_stderr(verbose: bool) -> None:
    """Show the log of this package on stderr when `verbose`; librdkafka's lines only then."""
    if not verbose:
        # The transfer itself says in one line what Dask and its event loop would say of a scheduler that went away.
        for name in ("distributed", "distributed.client", "asyncio"):
            logging.getLogger(name).setLevel(logging.CRITICAL)
        return
    from rich.console import Console
    from rich.logging import RichHandler

    handler = RichHandler(console=Console(stderr=True), show_path=False, markup=False)
    logger = logging.getLogger("fink_dask")
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    logging.getLogger("fink_dask.kafka.librdkafka").setLevel(logging.INFO)
