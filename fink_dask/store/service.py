"""Whose object store it is: how to connect to it, as whom, and how its own programs and pyarrow do.

Credentials and endpoint are given as to all programs that speak to the same service: by its variables in the
environment and, for S3, by ``~/.aws``. Each process looks them up for itself, so that none of it travels or is written.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar, Protocol

from fink_dask.errors import SettingsError, StorageError, one_line

#: Seconds for which credentials are used before they are asked for again, as they may expire.
_CREDENTIALS_S = 300.0
#: Seconds that a connection, and an answer, may take where it does not matter if there is none.
_TIDY_S = 3.0
#: Seconds that a connection of pyarrow's may take, those without a byte of an answer, and those that all of an answer
#: may take, however slow the line is; and how often it tries.
_CONNECT_S, _SILENCE_S, _ANSWER_S, _TRIES = 10.0, 30.0, 3600.0, 8
_REGION = "us-east-1"


class Service(Protocol):
    """A kind of object store, as one bucket of it is reached.

    Made of the bucket's name; raises StorageError if there are no credentials for it.
    """

    #: What the store says where it has no such bucket.
    no_bucket: ClassVar[str]

    @property
    def endpoint(self) -> str:
        """Where the store is."""

    @property
    def remedy(self) -> str:
        """Say what to set where the bucket is said to be elsewhere."""

    def connect(self, client: dict[str, Any], retry: dict[str, Any]) -> Any:
        """Return a client of obstore's."""

    def remove_unfinished(self, prefix: str) -> None:
        """Abort uploads in parts to keys that begin so, as far as the store lists them."""

    def filesystem(self) -> tuple[Any, str]:
        """Return pyarrow's file system, and the bucket's name there."""


class S3:
    """Amazon's store, and all that speak its protocol."""

    no_bucket: ClassVar = "NoSuchBucket"

    def __init__(self, bucket: str) -> None:
        session = _session()
        from botocore.config import Config

        self._bucket = bucket
        with settings_in_words(f"s3://{bucket}"):
            self._region = os.environ.get("AWS_REGION") or session.get_config_variable("region") or _REGION
            # Only settings, and what tidying up takes, come from botocore.
            config = Config(
                connect_timeout=_TIDY_S,
                read_timeout=_TIDY_S,
                retries={"total_max_attempts": 1},
                s3={"addressing_style": "path"},  # as obstore addresses it
            )
            self._client = session.create_client("s3", region_name=self._region, config=config)
            self._held = session.get_credentials()
        if self._held is None:
            raise StorageError(
                f"no credentials for s3://{bucket}: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE "
                "for one of ~/.aws/credentials"
            )

    @property
    def endpoint(self) -> str:
        """Amazon's, unless the environment or ~/.aws says otherwise."""
        endpoint: str = self._client.meta.endpoint_url
        return endpoint

    @property
    def remedy(self) -> str:
        """Name the region."""
        return f"in a region other than {self._region}: set AWS_REGION"

    def connect(self, client: dict[str, Any], retry: dict[str, Any]) -> Any:
        """Return a client that asks for credentials again and again."""
        from obstore.store import S3Store

        credentials = self._credentials
        credentials()  # whatever is wrong with them is said here, and not retried
        return S3Store(
            self._bucket,
            region=self._region,
            endpoint=self.endpoint,
            credential_provider=credentials,  # type: ignore[arg-type]
            disable_bulk_delete=True,  # not every store takes a list
            client_options=client,  # type: ignore[arg-type]
            retry_config=retry,  # type: ignore[arg-type]
        )

    def remove_unfinished(self, prefix: str) -> None:
        """Abort them, with botocore, as obstore can't list them."""
        from botocore.exceptions import BotoCoreError, ClientError

        with suppress(BotoCoreError, ClientError):  # not every store can list them, and not every user may
            for page in self._client.get_paginator("list_multipart_uploads").paginate(
                Bucket=self._bucket, Prefix=prefix
            ):
                for found in page.get("Uploads", ()):
                    if found["Key"].startswith(prefix):
                        self._client.abort_multipart_upload(
                            Bucket=self._bucket, Key=found["Key"], UploadId=found["UploadId"]
                        )

    def filesystem(self) -> tuple[Any, str]:
        """Return Arrow's own, with other time-outs: its 1 and 3 s and 2 tries are for lines within a data centre."""
        from pyarrow.fs import AwsStandardS3RetryStrategy, S3FileSystem

        filesystem = S3FileSystem(
            region=self._region,
            endpoint_override=self.endpoint,
            connect_timeout=_CONNECT_S,
            request_timeout=_SILENCE_S,
            retry_strategy=AwsStandardS3RetryStrategy(max_attempts=_TRIES),
        )
        return filesystem, self._bucket

    def _credentials(self) -> dict[str, Any]:
        now = self._held.get_frozen_credentials()
        return {
            "access_key_id": now.access_key,
            "secret_access_key": now.secret_key,
            "token": now.token,
            "expires_at": datetime.now(UTC) + timedelta(seconds=_CREDENTIALS_S),
        }


class _Environment:
    """A store whose client finds out by itself, from the environment, where and who it is."""

    def __init__(self, bucket: str) -> None:
        _require("obstore")
        self._bucket = bucket

    @property
    def remedy(self) -> str:
        """Say what the answer said."""
        return "elsewhere"

    def remove_unfinished(self, prefix: str) -> None:
        """Leave them: the store removes them by itself, or by a rule of the bucket's."""

    def _fsspec(self, scheme: str, endpoint: str) -> Any:
        from obstore import fsspec
        from pyarrow.fs import FSSpecHandler, PyFileSystem

        make: Any = fsspec.FsspecStore
        client = {
            "allow_http": endpoint.startswith("http://"),
            "connect_timeout": timedelta(seconds=_CONNECT_S),
            "read_timeout": timedelta(seconds=_SILENCE_S),
            "timeout": timedelta(seconds=_ANSWER_S),
        }
        return PyFileSystem(FSSpecHandler(make(scheme, client_options=client)))


class Google(_Environment):
    """Google Cloud Storage."""

    no_bucket: ClassVar = "NoSuchBucket"

    @property
    def endpoint(self) -> str:
        """Google's, unless the environment says otherwise."""
        return os.environ.get("GOOGLE_BASE_URL", "https://storage.googleapis.com")

    def connect(self, client: dict[str, Any], retry: dict[str, Any]) -> Any:
        """Return a client with application default credentials, or what GOOGLE_… says."""
        from obstore.store import GCSStore

        return GCSStore(self._bucket, client_options=client, retry_config=retry)  # type: ignore[arg-type]

    def filesystem(self) -> tuple[Any, str]:
        """Return obstore's."""
        return self._fsspec("gs", self.endpoint), self._bucket


class Azure(_Environment):
    """Azure Blob Storage; the bucket is a container of the account that the environment names."""

    no_bucket: ClassVar = "ContainerNotFound"

    def __init__(self, bucket: str) -> None:
        super().__init__(bucket)
        if not os.environ.get("AZURE_STORAGE_ACCOUNT_NAME"):
            raise StorageError(f"no account for az://{bucket}: set AZURE_STORAGE_ACCOUNT_NAME, and its credentials")

    @property
    def endpoint(self) -> str:
        """That of the account, unless the environment says otherwise."""
        account = os.environ.get("AZURE_STORAGE_ACCOUNT_NAME", "")
        return os.environ.get("AZURE_STORAGE_ENDPOINT", f"https://{account}.blob.core.windows.net")

    def connect(self, client: dict[str, Any], retry: dict[str, Any]) -> Any:
        """Return a client with what AZURE_… says."""
        from obstore.store import AzureStore

        return AzureStore(self._bucket, client_options=client, retry_config=retry)  # type: ignore[arg-type]

    def filesystem(self) -> tuple[Any, str]:
        """Return obstore's."""
        return self._fsspec("az", self.endpoint), self._bucket


#: By how their URLs begin.
SERVICES: dict[str, Callable[[str], Service]] = {"s3": S3, "gs": Google, "az": Azure}


@contextmanager
def settings_in_words(url: str) -> Iterator[None]:
    """Say in one line what is wrong with the environment or ~/.aws; botocore raises ValueErrors for some of it."""
    try:
        yield
    except Exception as error:
        if isinstance(error, ValueError) or type(error).__module__.startswith("botocore"):
            raise StorageError(f"{url}: {one_line(error)}") from None
        raise


def _session() -> Any:
    _require("obstore", "botocore")
    import botocore.session

    return botocore.session.Session()


def _require(*names: str) -> None:
    for name in names:
        try:
            __import__(name)
        except ImportError as error:
            raise SettingsError(f"a dataset on an object store needs {name}: pip install 'fink-dask[s3]'") from error
