"""Batches in threads: items fail alone, no answer reaches another's request, and nothing stays behind."""

import asyncio
import random
import threading
from typing import Any

import pytest

from spillway.engine.micro.batcher import Item
from spillway.engine.micro.runner import FullError, Output, Runner
from spillway.engine.micro.settings import BatchRules


def unwanted(output: Output) -> None:
    raise AssertionError(output)


class Clock:
    def monotonic(self) -> float:
        return asyncio.get_running_loop().time()

    def wall(self) -> float:
        return 0.0


class Echo:
    """Gives each text back. `poison` in a text breaks the whole batch that it is in; other words break single steps."""

    task = "moderations"

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.gate = threading.Event()
        self.gate.set()
        self.inside = 0
        self.most_inside = 0

    def load(self, folder: Any) -> None: ...

    def preprocess(self, text: str) -> str:
        if "early" in text:
            raise ValueError("secret words of a client")
        return text

    def tokens(self, prepared: str) -> int:
        return len(prepared)

    def predict(self, prepared: list[str]) -> list[str]:
        self.inside += 1
        self.most_inside = max(self.most_inside, self.inside)
        assert self.gate.wait(10.0)
        self.inside -= 1
        self.batches.append(prepared)
        if any("poison" in text for text in prepared):
            raise RuntimeError("all of it is lost")
        if any("short" in text for text in prepared):
            return []
        return list(prepared)

    def postprocess(self, output: str) -> str:
        if "late" in output:
            raise KeyError(output)
        return output.upper()


async def answers(runner: Runner, texts: list[str]) -> list[Output]:
    loop = asyncio.get_running_loop()
    futures: list[asyncio.Future[Output]] = [loop.create_future() for _ in texts]
    runner.submit([(Item(text), future.set_result) for text, future in zip(texts, futures, strict=True)])
    return list(await asyncio.wait_for(asyncio.gather(*futures), 10.0))


def test_items_fail_alone() -> None:
    async def scenario() -> None:
        model = Echo()
        runner = Runner(model, BatchRules(max_batch=8), Clock())
        texts = ["a", "early", "b", "poison", "c", "late", "short", "d"]
        told = await answers(runner, texts)
        assert [output.value for output in told] == ["A", None, "B", None, "C", None, None, "D"]
        assert [output.code for output in told] == [
            "",
            "item_failed",
            "",
            "item_failed",
            "",
            "item_failed",
            "item_failed",
            "",
        ]
        assert all("secret" not in output.error for output in told)
        assert [output.tokens for output in told] == [1, 0, 1, 0, 1, 0, 0, 1]
        assert runner.counts.bisections >= 2
        assert await runner.close(5.0)

    asyncio.run(scenario())


def test_what_comes_while_a_batch_is_computed_is_computed_together() -> None:
    async def scenario() -> None:
        model = Echo()
        runner = Runner(model, BatchRules(max_batch=16, max_delay_s=5.0), Clock())
        model.gate.clear()
        first = asyncio.ensure_future(answers(runner, ["first"]))
        await asyncio.sleep(0)
        others = [asyncio.ensure_future(answers(runner, [str(number)])) for number in range(5)]
        await asyncio.sleep(0)
        assert (runner.running, runner.waiting) == (1, 5)
        model.gate.set()
        await asyncio.gather(first, *others)
        assert sorted(map(len, model.batches)) == [1, 5]
        assert runner.counts.sizes == {1: 1, 5: 1}
        assert await runner.close(5.0)

    asyncio.run(scenario())


def test_a_full_queue_takes_none_of_a_request_and_who_leaves_makes_room() -> None:
    async def scenario() -> None:
        model = Echo()
        runner = Runner(model, BatchRules(max_batch=1, max_waiting=3, in_flight=1), Clock())
        model.gate.clear()
        kept = asyncio.ensure_future(answers(runner, ["x"]))
        await asyncio.sleep(0)
        waiting = [Item("w") for _ in range(2)]
        runner.submit([(item, unwanted) for item in waiting])
        with pytest.raises(FullError):
            runner.submit([(Item("y"), unwanted) for _ in range(2)])
        assert (runner.running, runner.waiting) == (1, 2)
        for item in waiting:
            runner.cancel(item)
        more = asyncio.ensure_future(answers(runner, ["1", "2", "3"]))
        await asyncio.sleep(0)
        model.gate.set()
        assert [output.value for output in await more] == ["1", "2", "3"]
        assert (await kept)[0].value == "X"
        assert (runner.running, runner.waiting) == (0, 0)
        assert await runner.close(5.0)

    asyncio.run(scenario())


@pytest.mark.parametrize("seed", range(6))
def test_no_answer_reaches_another_s_request_whatever_is_cancelled_and_fails(seed: int) -> None:
    chance = random.Random(seed)
    kinds = ("", "", "", "", "poison", "early", "late", "short")

    async def scenario() -> None:
        model = Echo()
        runner = Runner(model, BatchRules(max_batch=6, max_delay_s=0.0005, max_waiting=200), Clock())
        told: dict[str, Output] = {}
        gone: set[str] = set()

        def listener(name: str):
            def ready(output: Output) -> None:
                assert name not in told, "told twice"
                told[name] = output

            return ready

        async def client(number: int) -> None:
            for turn in range(20):
                names = [f"{number}-{turn}-{part} {chance.choice(kinds)}" for part in range(chance.randint(1, 4))]
                items = [Item(name, chance.randint(0, 2)) for name in names]
                runner.submit([(item, listener(name)) for item, name in zip(items, names, strict=True)])
                if chance.random() < 0.3:
                    await asyncio.sleep(chance.random() * 0.002)
                    for item, name in zip(items, names, strict=True):
                        if name not in told:
                            gone.add(name)
                            runner.cancel(item)
                    continue
                while not all(name in told for name in names):
                    await asyncio.sleep(0.0005)

        await asyncio.wait_for(asyncio.gather(*map(client, range(8))), 30.0)
        assert not told.keys() & gone
        for name, output in told.items():
            kind = name.partition(" ")[2]
            assert output.value == (None if kind else name.upper())
            assert bool(output.error) == bool(kind)
        assert await runner.close(5.0)
        assert (runner.running, runner.waiting) == (0, 0)
        assert model.most_inside == 1  # the model is never entered twice at once

    asyncio.run(scenario())


def test_two_batches_overlap_in_their_other_steps() -> None:
    async def scenario() -> None:
        model = Echo()
        runner = Runner(model, BatchRules(max_batch=1), Clock())
        model.gate.clear()
        both = asyncio.ensure_future(answers(runner, ["a", "b"]))
        async with asyncio.timeout(5.0):
            while runner.running < 2:
                await asyncio.sleep(0)
        model.gate.set()
        assert [output.value for output in await both] == ["A", "B"]
        assert await runner.close(5.0)

    asyncio.run(scenario())
