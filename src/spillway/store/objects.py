"""`batch.ports.Objects` on obstore: a local directory, or an S3-compatible service."""

import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Generator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import obstore
from obstore.exceptions import BaseError
from obstore.store import LocalStore, ObjectStore, S3Store

from spillway.batch.ports import ObjectWriter
from spillway.core.errors import ConfigError, StoreError
from spillway.store.settings import ObjectSettings

CHUNK_BYTES = 1 << 20
PART_BYTES = 8 << 20
_FAILURES = (BaseError, OSError)


def check_objects(settings: ObjectSettings) -> tuple[str, str]:
    """Kind and place of `settings.url`: file:PATH or s3://BUCKET/PREFIX. ConfigError for anything else."""
    kind, _, rest = settings.url.partition(":")
    if kind == "file" and rest and not rest.startswith("//"):
        return kind, rest
    if kind == "s3" and rest.startswith("//") and len(rest) > 2:
        return kind, rest[2:]
    raise ConfigError("expected file:PATH, such as file:objects, or s3://BUCKET/PREFIX")


def open_objects(settings: ObjectSettings, home: Path) -> "ObjectsAt":
    """The store that the settings name; a relative path lies in `home`. ConfigError."""
    kind, place = check_objects(settings)
    if kind == "s3":
        return ObjectsAt(_s3(settings, place))
    folder = home.absolute() / place
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return ObjectsAt(LocalStore(prefix=folder))


def _s3(settings: ObjectSettings, place: str) -> S3Store:
    bucket, _, prefix = place.partition("/")
    given: dict[str, Any] = {
        "endpoint": settings.endpoint,
        "region": settings.region,
        "access_key_id": settings.access_key,
        "secret_access_key": settings.secret_key,
    }
    config = {name: value for name, value in given.items() if value is not None}
    insecure = settings.endpoint is not None and settings.endpoint.startswith("http://")
    return S3Store(
        bucket,
        prefix=prefix.strip("/") or None,
        client_options={"allow_http": insecure},
        config=config,  # pyright: ignore[reportArgumentType]
    )


class _Writer:
    """`batch.ports.ObjectWriter`."""

    def __init__(self, inner: "obstore.AsyncWritableFile") -> None:
        self._inner = inner

    async def write(self, data: bytes) -> None:
        await self._inner.write(data)


class ObjectsAt:
    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    @asynccontextmanager
    async def writer(self, name: str) -> AsyncGenerator[ObjectWriter]:
        with _told():
            async with obstore.open_writer_async(self._store, name, buffer_size=PART_BYTES) as inner:
                yield _Writer(inner)

    async def put(self, name: str, data: bytes) -> None:
        with _told():
            await obstore.put_async(self._store, name, data)

    async def get(self, name: str) -> bytes | None:
        with _told():
            try:
                found = await obstore.get_async(self._store, name)
                return bytes(await found.bytes_async())
            except FileNotFoundError:
                return None

    async def range(self, name: str, offset: int, size_bytes: int) -> bytes | None:
        if size_bytes == 0:
            return b""
        with _told():
            try:
                return bytes(await obstore.get_range_async(self._store, name, start=offset, length=size_bytes))
            except FileNotFoundError:
                return None

    async def stream(self, name: str) -> AsyncIterator[bytes]:
        with _told():
            found = await obstore.get_async(self._store, name)
            async for chunk in found.stream(min_chunk_size=CHUNK_BYTES):
                yield bytes(chunk)

    async def delete(self, names: Sequence[str]) -> None:
        for name in names:
            with _told(), contextlib.suppress(FileNotFoundError):
                await obstore.delete_async(self._store, name)

    async def names(self, folder: str) -> list[str]:
        with _told():
            return [one["path"] async for page in obstore.list(self._store, folder) for one in page]


@contextlib.contextmanager
def _told() -> Generator[None]:
    """Of an object store's failure only the first line is kept: the rest repeats it, with addresses."""
    try:
        yield
    except _FAILURES as error:
        if isinstance(error, FileNotFoundError):
            raise
        raise StoreError(f"the object store cannot do it: {str(error).strip().splitlines()[0][:200]}") from error
