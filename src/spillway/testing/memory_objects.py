"""The object store's twin in memory (`batch.ports.Objects`). It never waits, so it is at home in virtual time."""

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager

from spillway.batch.ports import ObjectWriter


class _Draft:
    def __init__(self) -> None:
        self.pieces: list[bytes] = []

    async def write(self, data: bytes) -> None:
        self.pieces.append(data)


class MemoryObjects:
    def __init__(self) -> None:
        self.kept: dict[str, bytes] = {}

    @asynccontextmanager
    async def writer(self, name: str) -> AsyncGenerator[ObjectWriter]:
        draft = _Draft()
        yield draft
        self.kept[name] = b"".join(draft.pieces)

    async def put(self, name: str, data: bytes) -> None:
        self.kept[name] = data

    async def get(self, name: str) -> bytes | None:
        return self.kept.get(name)

    async def range(self, name: str, offset: int, size_bytes: int) -> bytes | None:
        whole = self.kept.get(name)
        return None if whole is None else whole[offset : offset + size_bytes]

    async def stream(self, name: str) -> AsyncIterator[bytes]:
        if name not in self.kept:
            raise FileNotFoundError(name)
        yield self.kept[name]

    async def delete(self, names: Sequence[str]) -> None:
        for name in names:
            self.kept.pop(name, None)

    async def names(self, folder: str) -> list[str]:
        return sorted(name for name in self.kept if name.startswith(f"{folder}/"))
