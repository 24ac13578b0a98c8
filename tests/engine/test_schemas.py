"""Schemas are compiled one at a time beside the batch, and nobody waits for them longer than set."""

import asyncio
import threading

from spillway.core.errors import BadRequestError, SpillwayError
from spillway.engine.schemas import MAX_KNOWN, MAX_QUEUED, SchemaBusyError, SchemaQueue


class PlayedCompiler:
    def __init__(self) -> None:
        self.compiled: list[str] = []
        self.gate = threading.Event()
        self.gate.set()
        self.reached = threading.Event()

    def compiles(self, schema: str) -> bool:
        self.compiled.append(schema)
        if schema == "slow":
            self.reached.set()
            assert self.gate.wait(10)
        if schema == "raises":
            raise RuntimeError(schema)
        return schema != "bad"


class Asked:
    """A queue and its compiler inside a loop."""

    def __init__(self, compiler: PlayedCompiler, *, compile_limit_s: float = 5.0) -> None:
        self.queue = SchemaQueue(lambda: compiler, asyncio.get_running_loop(), compile_limit_s=compile_limit_s)

    def check(self, schema: str) -> "asyncio.Future[SpillwayError | None]":
        answer: asyncio.Future[SpillwayError | None] = asyncio.get_running_loop().create_future()
        self.queue.check(schema, answer.set_result)
        return answer


def test_good_ones_pass_once_compiled_and_at_once_when_known() -> None:
    async def run() -> None:
        compiler = PlayedCompiler()
        asked = Asked(compiler)
        assert await asked.check("good") is None
        again = asked.check("good")
        assert again.done()
        assert again.result() is None
        assert compiler.compiled == ["good"]
        asked.queue.close()

    asyncio.run(run())


def test_bad_ones_are_refused_and_not_remembered() -> None:
    async def run() -> None:
        compiler = PlayedCompiler()
        asked = Asked(compiler)
        for schema in ("bad", "raises", "bad"):
            assert isinstance(await asked.check(schema), BadRequestError)
        assert await asked.check("good") is None
        assert compiler.compiled == ["bad", "raises", "bad", "good"]
        asked.queue.close()

    asyncio.run(run())


def test_a_slow_one_is_refused_in_time_and_the_next_follows() -> None:
    async def run() -> None:
        compiler = PlayedCompiler()
        compiler.gate.clear()
        asked = Asked(compiler, compile_limit_s=0.05)
        slow = await asked.check("slow")
        assert isinstance(slow, BadRequestError)
        assert "too long" in str(slow)
        following = asked.check("good")
        assert not following.done()
        compiler.gate.set()
        assert await following is None
        assert compiler.compiled == ["slow", "good"]
        asked.queue.close()

    asyncio.run(run())


def test_too_many_are_refused_at_once() -> None:
    async def run() -> None:
        compiler = PlayedCompiler()
        compiler.gate.clear()
        asked = Asked(compiler)
        first = asked.check("slow")
        assert await asyncio.to_thread(compiler.reached.wait, 10)
        waiting = [asked.check(f"schema {number}") for number in range(MAX_QUEUED)]
        assert isinstance(await asked.check("one more"), SchemaBusyError)
        compiler.gate.set()
        assert await asyncio.gather(first, *waiting) == [None] * (MAX_QUEUED + 1)
        asked.queue.close()

    asyncio.run(run())


def test_those_who_wait_are_answered_when_it_closes() -> None:
    async def run() -> None:
        compiler = PlayedCompiler()
        compiler.gate.clear()
        asked = Asked(compiler)
        asked.check("slow")
        waiting = asked.check("good")
        asked.queue.close()
        assert isinstance(await waiting, SchemaBusyError)
        compiler.gate.set()

    asyncio.run(run())


def test_what_is_remembered_is_bounded() -> None:
    async def run() -> None:
        compiler = PlayedCompiler()
        asked = Asked(compiler)
        for number in range(MAX_KNOWN + 1):
            await asked.check(str(number))
        await asked.check("0")  # the oldest was forgotten
        assert compiler.compiled.count("0") == 2
        asked.queue.close()

    asyncio.run(run())
