"""The ledger's documents: JSON objects that carry their own checksum, so that an edited or torn one is noticed."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from fink_dask.errors import LedgerError

#: Increased when a document's form changes so that an older fink-dask could misread it.
FORMAT = 1


def seal(kind: str, content: dict[str, Any]) -> bytes:
    """Write `content` as a document of a kind (``plan``, ``marker``), with its checksum."""
    return json.dumps(
        {"fink_dask": kind, "format": FORMAT, "sha256": checksum(content), kind: content}, separators=(",", ":")
    ).encode()


def unseal(kind: str, path: Path) -> dict[str, Any]:
    """Read a document back.

    Raises
    ------
    LedgerError
        If it is not a document of this kind, or not as it was written.
    FileNotFoundError
        If there is none.
    """
    try:
        document = json.loads(path.read_bytes())
        content: dict[str, Any] = document[kind]
        version, expected = document["format"], document["sha256"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise LedgerError(f"{path} is damaged: it is not a {kind} of a fink-dask ledger") from error
    if version != FORMAT:
        raise LedgerError(
            f"{path} has format {version}, and this fink-dask reads format {FORMAT}: use the one that wrote it"
        )
    if checksum(content) != expected:
        raise LedgerError(f"{path} was changed after it was written: its checksum differs")
    return content


def checksum(content: dict[str, Any]) -> str:
    """Hash a JSON object, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
