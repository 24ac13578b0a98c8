"""The `Ledger` of many hosts: one Valkey, or Redis ≥ 7.0, where a report is one call of `lua/ledger.lua`.

Rules:
1. A report has an effect before its time-out, by the server's own clock, or never: the script is told until when. So a member that heard
   that a report failed knows that the ledger has not seen it later than that.
2. After a failure the ledger is asked for its time before it gets another report, at most every PAUSE_S. A member must not be taken
   for present while it does not hear the answers: its floor would not be kept free.
3. Nothing that an earlier life of the server wrote counts: what it loads from disk may be old. Its new life begins by learning.
"""

import asyncio
from collections.abc import Callable, Sequence
from importlib import resources
from typing import cast

import msgspec
from redis import asyncio as valkey
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError, RedisError, ResponseError
from redis.retry import Retry

from spillway.core.clock import Clock, Seconds
from spillway.quota.ledger import Grant, LedgerError, LedgerTimes, Reply, Report, Seed

PAUSE_S = 0.25  # between two tries while it does not answer
MOST_CONNECTIONS = 64
STATE_KEY = "spillway:{limits}"
"""Of all keys, so that they lie in one slot of a cluster; accounts have a name behind it."""


class _Told(msgspec.Struct):
    """`late`: too late, nothing was done."""

    turn: int = 0
    share: float = 0.0
    members: int = 0
    learning: bool = False
    grants: tuple[Grant, ...] = ()
    now: Seconds = 0.0
    late: Seconds | None = None


class SharedLedger:
    """Any call may raise LedgerError, within `times.timeout_s` of being made (twice that after a failure)."""

    def __init__(
        self, url: str, times: LedgerTimes, clock: Clock, *, test_now: Callable[[], Seconds] | None = None
    ) -> None:
        """`url`: redis://, rediss:// or unix://. `test_now` takes the place of the server's clock."""
        self._times = times
        self._clock = clock
        self._test_now = test_now
        self._script = resources.files("spillway.store").joinpath("lua", "ledger.lua").read_text(encoding="utf-8")
        self._digest = ""
        self._packed_times = msgspec.msgpack.encode(times)
        self._encode = msgspec.msgpack.Encoder().encode
        self._decode = msgspec.msgpack.Decoder(_Told).decode
        self._server = valkey.Redis.from_url(
            url,
            socket_timeout=times.timeout_s,
            socket_connect_timeout=times.timeout_s,
            retry=Retry(NoBackoff(), 0),
            max_connections=MOST_CONNECTIONS,
            client_name="spillway",
            protocol=2,
        )
        self._doubted = True  # until the server has told its time
        self._gone = False
        self._failed_at: Seconds | None = None
        self._server_s: Seconds = 0.0  # its time …
        self._heard_at: Seconds = 0.0  # … and when we heard of it

    async def report(self, report: Report) -> Reply:
        keys = [STATE_KEY, *(_account_key(ask.key, ask.period) for ask in report.asks)]
        told = self._read(await self._call(b"report", keys, self._encode(report)))
        if told.late is not None:
            self._fail(gone=False)
            raise LedgerError("a report came too late", may_count=False)
        self._heard(told.now)
        return Reply(told.turn, told.share, told.members, told.learning, told.grants)

    async def seed(self, seeds: Sequence[Seed]) -> None:
        keys = [STATE_KEY, *(_account_key(seed.key, seed.period) for seed in seeds)]
        await self._call(b"seed", keys, self._encode(seeds))

    async def close(self) -> None:
        await self._server.aclose()

    def _read(self, answer: object) -> _Told:
        try:
            return self._decode(cast("bytes", answer))
        except (msgspec.MsgspecError, TypeError) as error:
            self._fail(gone=False)
            raise LedgerError("the ledger answers what no ledger says") from error

    async def _call(self, what: bytes, keys: list[str], said: bytes) -> object:
        if self._doubted:
            await self._ask_for_time()
        elapsed_s = self._clock.monotonic() - self._heard_at
        until_s = repr(self._server_s + elapsed_s + self._times.timeout_s)
        now = "" if self._test_now is None else repr(self._test_now())
        arguments = [*keys, what, said, self._packed_times, "" if now else until_s, now]
        try:
            async with asyncio.timeout(self._times.timeout_s):
                return await self._run(len(keys), arguments)
        except ResponseError as error:  # it answered, and did nothing: out of memory, a replica, loading
            self._fail(gone=False)
            raise LedgerError(f"the ledger refuses: {error}", may_count=False) from error
        except (RedisError, OSError) as error:  # TimeoutError is an OSError
            self._fail(gone=_refused(error))
            raise LedgerError(f"the ledger does not answer: {_said(error)}", gone=self._gone) from error

    async def _run(self, count: int, arguments: list[str | bytes]) -> object:
        if self._digest:
            try:
                return await self._server.execute_command("EVALSHA", self._digest, count, *arguments)
            except NoScriptError:
                pass
        self._digest = await self._server.script_load(self._script)
        return await self._server.execute_command("EVALSHA", self._digest, count, *arguments)

    async def _ask_for_time(self) -> None:
        """Without an effect there."""
        now = self._clock.monotonic()
        if self._failed_at is not None and now - self._failed_at < PAUSE_S:
            raise LedgerError("the ledger did not answer just now", gone=self._gone, may_count=False)
        try:
            async with asyncio.timeout(self._times.timeout_s):
                seconds, micros = await self._server.time()
                server_s = float(seconds) + float(micros) / 1e6
        except (RedisError, OSError, TypeError, ValueError) as error:
            self._fail(gone=_refused(error))
            raise LedgerError(
                f"the ledger does not answer: {_said(error)}", gone=self._gone, may_count=False
            ) from error
        self._heard(server_s)

    def _heard(self, server_s: Seconds) -> None:
        self._server_s, self._heard_at = server_s, self._clock.monotonic()
        self._doubted, self._gone, self._failed_at = False, False, None

    def _fail(self, *, gone: bool) -> None:
        self._doubted, self._gone, self._failed_at = True, gone, self._clock.monotonic()


def _account_key(key: str, period: str) -> str:
    return f"{STATE_KEY}:{key}|{period}"


def _refused(error: BaseException) -> bool:
    """Whether the host said that nobody listens: then nobody at all can ask."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, ConnectionRefusedError):
            return True
        seen = seen.__cause__ or seen.__context__
    return False


def _said(error: BaseException) -> str:
    return str(error) or type(error).__name__
