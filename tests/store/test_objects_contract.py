"""What every object store promises: the same suite on a directory, an S3-compatible server process, and the twin in memory."""

import asyncio
import os
import sys
import urllib.request
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest

from spillway.batch.ports import Objects
from spillway.core.errors import ConfigError, StoreError
from spillway.store.objects import PART_BYTES, check_objects, open_objects
from spillway.store.settings import ObjectSettings
from spillway.testing.memory_objects import MemoryObjects
from spillway.testing.processes import started_command

Play = Callable[[Callable[[Objects], Coroutine[Any, Any, None]]], None]
KEYS = {"access_key": "test", "secret_key": "test", "region": "us-east-1"}


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    """moto: an emulator, in a process of its own. Its address."""
    command = [str(Path(sys.executable).parent / "moto_server"), "-H", "127.0.0.1", "-p", "0"]
    with started_command(command, env=dict(os.environ)) as process:
        found = process.wait_for(r"Running on (http://127\.0\.0\.1:\d+)", deadline_s=30.0)
        yield found[1]


def bucket(address: str, name: str) -> ObjectSettings:
    made = urllib.request.Request(f"{address}/{name}", method="PUT")
    urllib.request.urlopen(made, timeout=10.0).close()
    return ObjectSettings(f"s3://{name}/spillway", endpoint=address, **KEYS)


@pytest.fixture(params=["memory", "file", pytest.param("s3", marks=pytest.mark.server)])
def play(request: pytest.FixtureRequest, tmp_path: Path) -> Play:
    def run(scenario: Callable[[Objects], Coroutine[Any, Any, None]]) -> None:
        objects: Objects = MemoryObjects()
        if request.param == "file":
            objects = open_objects(ObjectSettings("file:objects"), tmp_path)
        elif request.param == "s3":
            settings = bucket(request.getfixturevalue("s3"), f"bucket-{abs(hash(tmp_path)) % 10**9}")
            objects = open_objects(settings, tmp_path)
        asyncio.run(scenario(objects))

    return run


def test_what_is_put_is_there(play: Play) -> None:
    async def scenario(objects: Objects) -> None:
        await objects.put("files/a", b"0123456789")
        await objects.put("batches/b/1", b"x")
        await objects.put("batches/b/2", b"y")
        await objects.put("batches/bb/1", b"z")
        assert await objects.get("files/a") == b"0123456789"
        assert await objects.range("files/a", 3, 4) == b"3456"
        assert await objects.range("files/a", 3, 0) == b""
        assert sorted(await objects.names("batches/b")) == ["batches/b/1", "batches/b/2"]
        await objects.put("files/a", b"other")
        assert await objects.get("files/a") == b"other"
        await objects.delete(["batches/b/1", "batches/b/2", "nothing"])
        assert await objects.names("batches/b") == []

    play(scenario)


def test_what_is_not_there(play: Play) -> None:
    async def scenario(objects: Objects) -> None:
        assert await objects.get("files/none") is None
        assert await objects.range("files/none", 0, 5) is None
        assert await objects.names("files") == []
        with pytest.raises(FileNotFoundError):
            [piece async for piece in objects.stream("files/none")]

    play(scenario)


def test_a_written_object_is_there_whole_or_not_at_all(play: Play) -> None:
    async def scenario(objects: Objects) -> None:
        pieces = [bytes([number]) * (PART_BYTES // 3) for number in range(8)]
        async with objects.writer("files/large") as writer:
            for piece in pieces:
                await writer.write(piece)
        assert b"".join([piece async for piece in objects.stream("files/large")]) == b"".join(pieces)
        with pytest.raises(ZeroDivisionError):
            await broken(objects, pieces)
        assert await objects.get("files/broken") is None
        assert await objects.names("files") == ["files/large"]

    play(scenario)


async def broken(objects: Objects, pieces: list[bytes]) -> None:
    async with objects.writer("files/broken") as writer:
        for piece in pieces:
            await writer.write(piece)
        raise ZeroDivisionError


@pytest.mark.server
def test_a_service_that_is_away_is_a_store_error(tmp_path: Path) -> None:
    settings = ObjectSettings("s3://nowhere", endpoint="http://127.0.0.1:9", **KEYS)

    async def scenario() -> None:
        objects = open_objects(settings, tmp_path)
        with pytest.raises(StoreError):
            await objects.put("a", b"")

    asyncio.run(scenario())


@pytest.mark.parametrize("url", ["", "file:", "file://x", "s3:x", "s3://", "http://x", "ftp:x"])
def test_places_that_are_none(url: str) -> None:
    with pytest.raises(ConfigError):
        check_objects(ObjectSettings(url))
