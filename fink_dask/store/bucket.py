"""A bucket of an object store: its few requests, and what can go wrong with them, in words."""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from fink_dask.errors import StorageError
from fink_dask.store.service import SERVICES, settings_in_words

#: Seconds for which a request is retried where the store has never answered, or not the last time: a wrong address is
#: soon reported, and a run whose store has gone away comes to an end.
_FIRST_PATIENCE_S = 8.0
_LAST_PAUSE_S = 8.0
#: Seconds that a connection may take: with TLS three round trips, on a line that may be full.
_CONNECT_S = 10.0
#: Seconds without a byte of the answer, and those that all of an answer may take, however slow the line is.
_SILENCE_S, _ANSWER_S = 30.0, 3600.0
#: Seconds that a request may take that sends a part of a file, or has the store copy one. A part takes 8 seconds at
#: 5 Mbit/s, and other processes may send at the same time.
_SENDING_S = 300.0


class Found(NamedTuple):
    """What a store says of an object."""

    key: str
    size: int
    modified: float
    #: What tells it from the objects that had its name before.
    version: dict[str, str]


class Bucket:
    """A bucket.

    All methods raise StorageError if the store does not answer, refuses, or has no such bucket.
    Raises FileNotFoundError, FileExistsError if an object is not there, or is another one than a condition says.
    Raises SettingsError if obstore is not installed.
    """

    #: Seconds for which a request is retried that a store refused for the moment, or did not answer: what
    #: `--reconnect-timeout` says, as for Kafka. What was under way when a line was cut is only found to be lost later.
    patience_s: ClassVar[float] = 300.0

    def __init__(self, scheme: str, name: str) -> None:
        self.name = name
        self.url = f"{scheme}://{name}"
        #: Whether the store was found to heed conditions; see `ObjectPath.check_conditions`.
        self.heeds_conditions = False
        self._answers = False
        from fink_dask.store.uploads import Uploads  # here, as it loads asyncio, which no directory needs

        #: Sends files.
        self.uploads = Uploads(self)
        #: How it is connected to.
        self.service = SERVICES[scheme](name)
        self._connected: dict[tuple[float, ...], Any] = {}

    @property
    def _store(self) -> Any:
        patience_s = self.patience_s if self._answers else min(_FIRST_PATIENCE_S, self.patience_s)
        return self._connect(patience_s, _ANSWER_S, _SILENCE_S)

    @property
    def _sender(self) -> Any:
        # To the client, the store is silent for as long as a body is sent to it.
        return self._connect(self.patience_s + _SENDING_S, _SENDING_S, _SENDING_S)

    def get(self, key: str) -> bytes:
        """Read an object."""
        with self._in_words(key):
            return bytes(_obstore().get(self._store, key).bytes())

    def get_range(self, key: str, start: int, end: int) -> bytes:
        """Read some bytes of an object."""
        with self._in_words(key):
            return bytes(_obstore().get_range(self._store, key, start=start, end=end))

    def head(self, key: str) -> Found:
        """Look at an object."""
        with self._in_words(key):
            return _found(_obstore().head(self._store, key))

    def put(self, key: str, content: bytes) -> None:
        """Write an object, replacing one that may be there."""
        with self._in_words(key):
            _obstore().put(self._store, key, content, use_multipart=False)

    async def upload(self, key: str, path: Path, part_bytes: int, at_once: int) -> None:
        """Write a local file as an object, which is there when all of it is; see `Uploads`."""
        try:
            with self._in_words(key):
                await _obstore().put_async(self._sender, key, path, chunk_size=part_bytes, max_concurrency=at_once)
        except FileNotFoundError:
            # Where the answer to the end of an upload in parts was lost, the store no longer knows the upload.
            # Nobody else writes an object of this name.
            if (await self.look(key)).size != path.stat().st_size:
                raise

    async def look(self, key: str) -> Found:
        """Look at an object, as `head` does."""
        with self._in_words(key):
            return _found(await _obstore().head_async(self._store, key))

    def remove_unfinished(self, prefix: str) -> None:
        """Remove what uploads in parts, to keys that begin so, have left that were not completed; as far as it goes.

        None of it is an object, but it is kept, and paid for. Whoever still sends there will fail.
        """
        self.service.remove_unfinished(prefix)

    def put_new(self, key: str, content: bytes) -> None:
        """Write an object if there is none of that name; a put that succeeded may still raise a FileExistsError."""
        with self._in_words(key):
            _obstore().put(self._store, key, content, mode="create")

    def put_instead(self, key: str, content: bytes, version: dict[str, str]) -> None:
        """Write an object in place of the one of this version."""
        with self._in_words(key):
            _obstore().put(self._store, key, content, mode=version)

    def copy(self, source: str, target: str) -> None:
        """Copy an object within the store."""
        with self._in_words(source):
            _obstore().copy(self._sender, source, target)

    def delete(self, keys: Sequence[str]) -> None:
        """Remove objects; one that is not there is removed already."""
        with self._in_words(keys[0] if keys else ""):
            try:
                _obstore().delete(self._store, keys)
            except FileNotFoundError as error:
                if self.service.no_bucket in str(error):
                    raise
                if len(keys) > 1:  # it may have ended with the first that is not there
                    for key in keys:
                        self.delete([key])

    def below(self, prefix: str) -> Iterator[Found]:
        """List the objects whose names begin with a prefix and a slash."""
        with self._in_words(prefix):
            for chunk in _obstore().list(self._store, prefix):
                yield from map(_found, chunk)

    def children(self, prefix: str) -> tuple[list[str], list[Found]]:
        """List what is right below a prefix: the prefixes there, and the objects."""
        with self._in_words(prefix):
            found = _obstore().list_with_delimiter(self._store, prefix)
        return sorted(found["common_prefixes"]), sorted(map(_found, found["objects"]))

    def _connect(self, patience_s: float, request_s: float, silence_s: float) -> Any:
        """Return a client of this patience; one is kept of each."""
        key = (patience_s, request_s, silence_s)
        if key not in self._connected:
            self._connected[key] = self._make(*key)
        return self._connected[key]

    def _make(self, patience_s: float, request_s: float, silence_s: float) -> Any:
        return self.service.connect(
            {
                "allow_http": self.service.endpoint.startswith("http://"),
                "connect_timeout": timedelta(seconds=_CONNECT_S),
                "timeout": timedelta(seconds=request_s),
                "read_timeout": timedelta(seconds=silence_s),
            },
            {
                "max_retries": 100,
                "retry_timeout": timedelta(seconds=patience_s),
                "backoff": {"max_backoff": timedelta(seconds=_LAST_PAUSE_S)},
            },
        )

    @contextmanager
    def _in_words(self, key: str) -> Iterator[None]:
        """Say what goes wrong in one line; never with the cause, which holds the request."""
        from obstore import exceptions

        url = f"{self.url}/{key}"
        try:
            with settings_in_words(self.url):
                yield
            self._answers = True
        except (exceptions.BaseError, FileNotFoundError) as error:
            said = self._said(url, error)
            self._answers = not isinstance(said, StorageError)
            raise said from None

    def _said(self, url: str, error: Exception) -> Exception:
        """Find the words for what obstore has raised."""
        from obstore import exceptions

        text, reason, endpoint = str(error), _reason(error), self.service.endpoint
        if self.service.no_bucket in text:
            return StorageError(f"there is no bucket {self.name} at {endpoint}")
        if isinstance(error, FileNotFoundError):
            return FileNotFoundError(errno.ENOENT, "No such object", url)
        if isinstance(error, exceptions.AlreadyExistsError | exceptions.PreconditionError):
            return FileExistsError(errno.EEXIST, "There is another object", url)
        if reason.startswith(("401", "403")):
            open_bucket.cache_clear()  # so that credentials that are mended meanwhile are found
            words = f"refuses access to {url} ({reason}): check the credentials, and what they permit"
        elif "redirect" in text.lower() or reason.startswith("301"):
            words = f"has the bucket {self.name} {self.service.remedy}"
        elif reason:
            words = f"can't serve {url} now ({reason}); the same command goes on when it can"
        else:
            words = f"does not answer ({url}): look at the line to it; the same command goes on when it does"
        return StorageError(f"{endpoint} {words}")


@lru_cache(maxsize=64)
def open_bucket(scheme: str, name: str) -> Bucket:
    """Return the one object that a process has for a bucket."""
    return Bucket(scheme, name)


def wait_for_stores(seconds: float) -> None:
    """Have this process wait so long for a store that does not answer any more, before that is a failure."""
    Bucket.patience_s = seconds


def _found(meta: Any) -> Found:
    version = {name: meta[name] for name in ("e_tag", "version") if meta.get(name)}
    return Found(meta["path"], meta["size"], meta["last_modified"].timestamp(), version)


def _reason(error: Exception) -> str:
    """Find the store's own word, and the status, in what obstore says of an answer."""
    text = str(error)
    status = re.search(r"status code: (\d{3}(?: [A-Z][A-Za-z]+)*)", text)
    code = re.search(r"<Code>(\w{1,80})</Code>", text)
    return ", ".join(match[1] for match in (status, code) if match)


def _obstore() -> Any:
    import obstore

    return obstore
