"""Batch workers in virtual time: whatever gateways, stores and workers do, each line ends once, with its own answer."""

import asyncio
import json
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spillway.batch.jobs import Batch, FileRow, Lease, Purpose, State, object_of
from spillway.batch.ports import Reply
from spillway.batch.settings import Settings
from spillway.batch.worker import BatchWorker
from spillway.core.errors import StoreError
from spillway.core.ids import BatchId, FileId, KeyId, ModelName, OrganizationId, TenantId
from spillway.core.usage import UsageRecord
from spillway.testing.memory_batches import MemoryBatches
from spillway.testing.memory_objects import MemoryObjects
from spillway.testing.rng import SeededRng
from spillway.testing.virtual_loop import VirtualLoop, run_virtual

CHAT = "/v1/chat/completions"
ACME = TenantId("acme")
INPUT, JOB = FileId("file-in"), BatchId("batch_1")
SETTINGS = Settings(in_flight=8, shard_lines=10, group_lines=4, lease_s=6.0, poll_s=0.5, slice_tokens=8)
KILLER = 17
"""A line that ends whoever computes it, in the tests that have one."""


def line_of(number: int) -> bytes:
    return json.dumps(
        {"custom_id": f"id-{number}", "method": "POST", "url": CHAT, "body": {"model": "npc", "n": number}}
    ).encode()


class FakeGateway:
    """Answers with the line's number, after a while; `troubles` by chance."""

    def __init__(self, rng: SeededRng, troubles: dict[int, float], slow_s: float = 1.0) -> None:
        self._rng = rng
        self._troubles = troubles
        self._slow_s = slow_s
        self.running = 0
        self.most_running = 0
        self.sent = Counter[str]()
        self.on_send: Any = None

    async def send(self, key: KeyId, item: str, path: str, body: bytes, deadline_s: float) -> Reply:
        self.sent[item] += 1
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        try:
            if self.on_send is not None:
                await self.on_send(item)
            await asyncio.sleep(self._slow_s * self._rng.random())
        finally:
            self.running -= 1
        for status, chance in self._troubles.items():
            if self._rng.random() < chance:
                return Reply(status, b'{"error":{}}', "req", 0.5 if status in (429, 503) else None)
        number = json.loads(body)["n"]
        answer = {
            "number": number,
            "usage": {"prompt_tokens": number, "completion_tokens": 2, "total_tokens": number + 2},
        }
        return Reply(200, json.dumps(answer).encode(), f"req-{item}-{self.sent[item]}", None, 7)


class Bills:
    def __init__(self) -> None:
        self.records: dict[str, UsageRecord] = {}

    async def billed(self, batch: BatchId) -> frozenset[str]:
        return frozenset()

    async def ingest(self, records: Iterable[UsageRecord]) -> None:
        self.records |= {record.item: record for record in records}


class Yard:
    """A batch of `lines`, and workers that come and go."""

    def __init__(self, loop: VirtualLoop, lines: int, gateway: FakeGateway, *, window_s: float = 86_400.0) -> None:
        self.loop = loop
        self.memory = MemoryBatches()
        self.objects = MemoryObjects()
        self.gateway = gateway
        self.bills = Bills()
        self.lines = lines
        self.written: list[bytes] = []  # instead of the usual ones
        self._window_s = window_s
        self._workers: list[tuple[asyncio.Event, asyncio.Task[None]]] = []
        self._count = 0

    async def fill(self) -> None:
        content = b"\n".join(self.written or map(line_of, range(self.lines)))
        await self.objects.put(object_of(INPUT), content)
        await self.memory.files.add(FileRow(INPUT, ACME, OrganizationId(""), Purpose.BATCH, "in", len(content), 0.0))
        job = Batch(
            id=JOB, tenant=ACME, organization=OrganizationId(""), key=KeyId("key"), endpoint=CHAT, input_file=INPUT,
            window="24h", window_s=self._window_s, created_at_s=0.0, expires_at_s=self._window_s,
        )  # fmt: skip
        await self.memory.batches.add(job, most=9)

    def start(self, *, continues: bool = False) -> None:
        self._count += 1
        sliced = frozenset({"npc"}) if continues else frozenset[str]()
        worker = BatchWorker(
            f"w{self._count}", self.memory.work, self.memory.batches, self.memory.files, self.objects, self.bills,
            self.gateway, SETTINGS, lambda: {"npc": ModelName("npc-2")}, self.loop, SeededRng(self._count),
            lambda: sliced,
        )  # fmt: skip
        stopping = asyncio.Event()
        self._workers.append((stopping, asyncio.ensure_future(worker.run(stopping))))

    async def kill(self) -> None:
        """The oldest worker vanishes: nothing is given back."""
        _, task = self._workers.pop(0)
        release = self.memory.work.release_shard

        async def nothing(lease: Lease) -> None:
            return None

        self.memory.work.release_shard = nothing
        task.cancel()
        await asyncio.wait([task])
        self.memory.work.release_shard = release

    async def stop(self) -> None:
        for stopping, task in self._workers:
            stopping.set()
            await task
        assert self.gateway.running == 0

    async def over(self) -> Batch:
        async with asyncio.timeout(50_000.0):
            while (job := await self.memory.batches.one(ACME, JOB)) is None or job.state in (
                State.VALIDATING, State.IN_PROGRESS, State.FINALIZING, State.CANCELLING,
            ):  # fmt: skip
                await asyncio.sleep(1.0)
        return job

    async def rows(self, file: FileId | None) -> list[dict[str, Any]]:
        return (
            []
            if file is None
            else [json.loads(x) for x in (await self.objects.get(object_of(file)) or b"").splitlines()]
        )


def play(scenario: Callable[[VirtualLoop], Coroutine[Any, Any, None]]) -> None:
    """Nothing runs on after a scenario that failed."""

    async def whole(loop: VirtualLoop) -> None:
        try:
            await scenario(loop)
        finally:
            rest = asyncio.all_tasks() - {asyncio.current_task()}
            for task in rest:
                task.cancel()
            await asyncio.gather(*rest, return_exceptions=True)

    run_virtual(whole)


async def check(yard: Yard, job: Batch) -> None:
    good, bad = await yard.rows(job.output_file), await yard.rows(job.error_file)
    for rows in (good, bad):
        numbers = [int(row["custom_id"][3:]) for row in rows]
        assert numbers == sorted(set(numbers))
    assert {row["custom_id"] for row in good + bad} == {f"id-{number}" for number in range(yard.lines)}
    assert all(row["response"]["body"]["number"] == int(row["custom_id"][3:]) for row in good)
    assert (job.sums.completed, job.sums.failed) == (len(good), len(bad))
    assert job.sums.prompt_tokens == sum(row["response"]["body"]["usage"]["prompt_tokens"] for row in good)
    assert yard.bills.records.keys() == {f"{JOB}/{row['custom_id'][3:]}" for row in good}
    assert await yard.objects.names("batches") == []


@given(
    seed=st.integers(0, 10_000),
    lines=st.integers(1, 60),
    kills=st.lists(st.floats(0.1, 20.0), max_size=5),
    busy=st.floats(0.0, 0.5),
    broken=st.floats(0.0, 0.3),
)
def test_every_line_ends_once_with_its_own_answer(
    seed: int, lines: int, kills: list[float], busy: float, broken: float
) -> None:
    async def scenario(loop: VirtualLoop) -> None:
        rng = SeededRng(seed)
        yard = Yard(loop, lines, FakeGateway(rng, {429: busy, 503: busy / 4, 0: broken, 500: broken / 2, 400: 0.05}))
        await yard.fill()
        for _ in range(3):
            yard.start()
        for gap in kills:
            await asyncio.sleep(gap)
            await yard.kill()
            yard.start()
        job = await yard.over()
        assert job.state is State.COMPLETED
        await check(yard, job)
        await yard.stop()

    play(scenario)


@given(seed=st.integers(0, 10_000), away=st.lists(st.tuples(st.floats(0.1, 10.0), st.floats(0.1, 15.0)), max_size=4))
def test_a_store_that_is_away_loses_nothing(seed: int, away: list[tuple[float, float]]) -> None:
    async def scenario(loop: VirtualLoop) -> None:
        yard = Yard(loop, 40, FakeGateway(SeededRng(seed), {}))
        await yard.fill()
        work = yard.memory.work
        names = ("lease_batch", "lease_shard", "renew_shards", "commit", "save", "groups", "release_shard")
        whole = {name: getattr(work, name) for name in names}

        async def gone(*_: object, **__: object) -> None:
            raise StoreError("away")

        async def commit_without_an_answer(*words: Any) -> bool:
            await whole["commit"](*words)
            raise StoreError("no answer")

        for _ in range(2):
            yard.start()
        for here_s, gone_s in away:
            await asyncio.sleep(here_s)
            for name in names:
                setattr(work, name, commit_without_an_answer if name == "commit" and gone_s > 5.0 else gone)
            await asyncio.sleep(gone_s)
            for name in names:
                setattr(work, name, whole[name])
        job = await yard.over()
        await check(yard, job)
        await yard.stop()

    play(scenario)


def test_a_line_that_ends_its_workers_is_found_and_given_up() -> None:
    async def scenario(loop: VirtualLoop) -> None:
        gateway = FakeGateway(SeededRng(1), {}, slow_s=20.0)  # nothing else of its shard is committed before it strikes
        yard = Yard(loop, 30, gateway)
        await yard.fill()
        struck = asyncio.Event()

        async def deadly(item: str) -> None:
            if item == f"{JOB}/{KILLER}":
                struck.set()
                await asyncio.Event().wait()

        gateway.on_send = deadly
        yard.start()

        async def undertaker() -> None:
            while True:
                await struck.wait()
                struck.clear()
                await yard.kill()
                yard.start()

        burying = asyncio.ensure_future(undertaker())
        job = await yard.over()
        burying.cancel()
        (bad,) = await yard.rows(job.error_file)
        assert (bad["custom_id"], bad["error"]["code"], bad["response"]) == (f"id-{KILLER}", "poison", None)
        assert len(await yard.rows(job.output_file)) == 29
        assert 4 <= gateway.sent[f"{JOB}/{KILLER}"] <= 16  # each commit of its shard in between gives it another chance
        await yard.stop()

    play(scenario)


def test_a_batch_whose_time_is_over_delivers_what_is_finished() -> None:
    async def scenario(loop: VirtualLoop) -> None:
        yard = Yard(loop, 40, FakeGateway(SeededRng(1), {}, slow_s=10.0), window_s=12.0)
        await yard.fill()
        yard.start()
        job = await yard.over()
        assert job.state is State.EXPIRED
        good, bad = await yard.rows(job.output_file), await yard.rows(job.error_file)
        assert good
        assert len(good) + len(bad) == 40
        assert {row["error"]["code"] for row in bad} == {"batch_expired"}
        assert job.sums.completed == len(good)
        await yard.stop()

    play(scenario)


def test_refusals_make_the_window_small_and_answers_make_it_large_again() -> None:
    async def scenario(loop: VirtualLoop) -> None:
        gateway = FakeGateway(SeededRng(3), {429: 1.0}, slow_s=0.1)
        yard = Yard(loop, 60, gateway)
        await yard.fill()
        yard.start()
        await asyncio.sleep(15.0)
        gateway.most_running = 0
        await asyncio.sleep(15.0)
        assert gateway.most_running <= 2
        gateway._troubles = {}  # pyright: ignore[reportPrivateUsage]
        job = await yard.over()
        assert job.sums.completed == 60
        assert gateway.most_running == SETTINGS.in_flight
        await yard.stop()

    play(scenario)


@pytest.mark.parametrize(("status", "attempts"), [(500, 3), (0, 20)])
def test_a_line_that_always_fails_is_given_up(status: int, attempts: int) -> None:
    async def scenario(loop: VirtualLoop) -> None:
        gateway = FakeGateway(SeededRng(3), {status: 1.0}, slow_s=0.1)
        yard = Yard(loop, 1, gateway)
        await yard.fill()
        yard.start()
        job = await yard.over()
        (bad,) = await yard.rows(job.error_file)
        assert (bad["response"] is None) == (status == 0)
        assert gateway.sent[f"{JOB}/0"] == attempts
        await yard.stop()

    play(scenario)


def test_a_long_generation_comes_in_slices_and_is_billed_for_each() -> None:
    async def scenario(loop: VirtualLoop) -> None:
        story = [f"w{number} " for number in range(23)]

        class Teller(FakeGateway):
            async def send(self, key: KeyId, item: str, path: str, body: bytes, deadline_s: float) -> Reply:
                self.sent[item] += 1
                asked = json.loads(body)
                said = len(asked["messages"][-1]["content"].split()) if asked.get("continue_final_message") else 0
                now = story[said : said + asked["max_tokens"]]
                if self._rng.random() < 0.3:
                    return Reply(429, b"{}", "", 0.1)
                answer = {
                    "choices": [{"message": {"role": "assistant", "content": "".join(now)},
                                 "finish_reason": "stop" if said + len(now) == len(story) else "length"}],
                    "usage": {"prompt_tokens": 4 + said, "completion_tokens": len(now), "total_tokens": 0},
                }  # fmt: skip
                return Reply(200, json.dumps(answer).encode(), f"req-{item}", None, 11)

        teller = Teller(SeededRng(5), {})
        yard = Yard(loop, 3, teller)
        for number in range(3):
            wanted = {
                "model": "npc",
                "n": 1,
                "max_tokens": 5 if number == 1 else 100,
                "messages": [{"role": "user", "content": "hi"}],
            }
            line = {"custom_id": f"id-{number}", "method": "POST", "url": CHAT, "body": wanted}
            yard.written.append(json.dumps(line).encode())
        await yard.fill()
        yard.start(continues=True)
        job = await yard.over()
        rows = await yard.rows(job.output_file)
        texts = [row["response"]["body"]["choices"][0]["message"]["content"] for row in rows]
        assert texts == ["".join(story), "".join(story[:5]), "".join(story)]
        assert rows[0]["response"]["body"]["usage"]["completion_tokens"] == 23
        assert (job.sums.prompt_tokens, job.sums.completion_tokens) == (12, 51)
        names = {item.partition("/")[2] for item in yard.bills.records}
        assert {record.model for record in yard.bills.records.values()} == {"npc-2"}  # what the name stands for
        assert names == {"0", "0#1", "0#2", "1", "2", "2#1", "2#2"}
        assert sum(record.prompt_tokens for record in yard.bills.records.values()) == 12
        assert sum(record.completion_tokens for record in yard.bills.records.values()) == 51
        await yard.stop()

    play(scenario)
