"""Log lines are JSON, bounded, and without anything that a person typed."""

import io
import json
import logging
import os
import subprocess
import sys

import pytest
from tests.telemetry.conftest import MakeRecord

from spillway.core.errors import StoreError
from spillway.core.ids import EndpointUrl, ModelName, PoolName, RequestId
from spillway.core.outcome import Outcome
from spillway.telemetry.access_log import GatewayLog
from spillway.telemetry.logs import ACCESS, ROOT, JsonLines, Throttle
from spillway.testing.clock import ManualClock
from spillway.testing.rng import SeededRng


class Lines:
    """A logger of its own, and what it wrote."""

    def __init__(self, name: str = ROOT, clock: ManualClock | None = None) -> None:
        self._stream = io.StringIO()
        output = logging.StreamHandler(self._stream)
        output.setFormatter(JsonLines())
        if clock is not None:
            output.addFilter(Throttle(clock.monotonic, per_s=1.0, burst=3))
        self.log = OwnLogger(name, output)

    def read(self) -> list[dict[str, object]]:
        return [json.loads(line) for line in self._stream.getvalue().splitlines()]


class OwnLogger(logging.Logger):
    """Not among the process's loggers; its children neither."""

    def __init__(self, name: str, output: logging.Handler) -> None:
        super().__init__(name, logging.DEBUG)
        self._output = output
        self.addHandler(output)

    def getChild(self, suffix: str) -> "OwnLogger":
        return OwnLogger(f"{self.name}.{suffix}", self._output)


def test_a_line_is_one_object_with_the_extra_fields() -> None:
    lines = Lines()
    lines.log.warning("pool %s is away", "east", extra={"request": "req_1", "count": 3, "share": 0.5, "gone": None})
    (line,) = lines.read()
    assert isinstance(line.pop("time"), str)
    assert line == {
        "level": "warning", "logger": "spillway", "message": "pool east is away",
        "request": "req_1", "count": 3, "share": 0.5, "gone": None,
    }  # fmt: skip


def test_a_file_name_that_is_not_unicode_loses_no_line() -> None:
    lines = Lines()
    name = os.fsdecode(b"caf\xe9.db")
    lines.log.warning("%s is away", name, extra={"file": name})
    (line,) = lines.read()
    assert (line["message"], line["file"]) == (f"{name} is away", name)


def test_line_breaks_and_long_texts_stay_in_their_line() -> None:
    lines = Lines()
    lines.log.info("one\ntwo" + "x" * 10_000, extra={"detail": "y" * 10_000})
    (line,) = lines.read()
    assert len(str(line["message"])) == 4096
    assert len(str(line["detail"])) == 4096


def test_of_an_exception_only_ours_show_their_text() -> None:
    lines = Lines()
    for error in (ValueError("the prompt was CANARY"), StoreError("disk full")):
        try:
            try:
                raise KeyError("CANARY")
            except KeyError as cause:
                raise error from cause
        except (ValueError, StoreError):
            lines.log.exception("it failed")
    foreign, ours = lines.read()
    assert "CANARY" not in json.dumps([foreign, ours])
    assert isinstance(foreign["error"], dict)
    assert foreign["error"]["type"] == "ValueError"
    assert "test_logs.py" in foreign["error"]["at"][-1]
    assert foreign["error"]["after"]["type"] == "KeyError"
    assert isinstance(ours["error"], dict)
    assert ours["error"]["text"] == "disk full"


def test_of_a_librarys_message_only_the_first_line_is_kept() -> None:
    lines = Lines("asyncio")
    lines.log.error("Task exception was never retrieved\nfuture: <Task ValueError('CANARY')>")
    (line,) = lines.read()
    assert line["message"] == "Task exception was never retrieved"


def test_a_storm_of_one_kind_is_held_back_and_counted_and_hides_no_other() -> None:
    clock = ManualClock()
    lines = Lines(clock=clock)
    for number in range(100):
        lines.log.error("attempt %d failed", number)
    lines.log.error("something else")
    assert [line["message"] for line in lines.read()] == [
        "attempt 0 failed", "attempt 1 failed", "attempt 2 failed", "something else",
    ]  # fmt: skip
    clock.advance(1.0)
    lines.log.error("attempt %d failed", 100)
    lines.log.error("attempt %d failed", 101)
    assert lines.read()[-1]["message"] == "attempt 100 failed"
    assert lines.read()[-1]["suppressed"] == 97


def test_kinds_without_end_are_bounded_too() -> None:
    lines = Lines(clock=ManualClock())
    for number in range(2000):
        lines.log.error(f"kind {number}")
    assert len(lines.read()) == 512 + 3


def test_an_access_line_tells_how_it_went(make_record: MakeRecord) -> None:
    lines = Lines(clock=ManualClock())
    observer = GatewayLog(lines.log, SeededRng(1), share=1.0)
    for _ in range(10):
        observer.ended(make_record(), 0.0004)
    found = lines.read()
    assert len(found) == 10  # how many there are is the operator's choice
    assert found[0]["logger"] == f"{ROOT}.{ACCESS}"
    assert {name: found[0][name] for name in ("request", "outcome", "pool", "duration_s", "overhead_s")} == {
        "request": "req_0", "outcome": "ok", "pool": "npc@east", "duration_s": 0.5, "overhead_s": 0.0004,
    }  # fmt: skip


def test_the_access_log_is_off_by_default_and_sampled_when_asked(make_record: MakeRecord) -> None:
    silent, some = Lines(), Lines()
    off, sampled = GatewayLog(silent.log, SeededRng(1)), GatewayLog(some.log, SeededRng(1), share=0.1)
    for _ in range(2000):
        off.ended(make_record(), 0.0)
        sampled.ended(make_record(), 0.0)
    off.refused(Outcome.UNAUTHENTICATED)
    off.spilled(ModelName("npc"), PoolName("a"), PoolName("b"), "saturated")
    assert silent.read() == []
    assert 140 < len(some.read()) < 260


def test_faults_and_breakers_are_always_told(make_record: MakeRecord) -> None:
    lines = Lines()
    observer = GatewayLog(lines.log, SeededRng(1))
    observer.ended(make_record(outcome=Outcome.INTERNAL), 0.0)
    observer.attempt_failed(RequestId("req_1"), PoolName("east"), EndpointUrl("http://e"), "connect", "refused")
    observer.breaker_changed(PoolName("east"), EndpointUrl("http://e"), "open")
    assert [(line["level"], line["message"]) for line in lines.read()] == [
        ("error", "request failed for a mistake of ours"),
        ("warning", "attempt failed"),
        ("warning", "breaker changed"),
    ]


@pytest.mark.server
def test_configure_sets_up_the_process_once_for_us_and_for_libraries() -> None:
    program = """
import logging
from spillway.telemetry import logs
from spillway.telemetry.settings import LogLevel
from spillway.testing.clock import ManualClock
for level in (LogLevel.DEBUG, LogLevel.INFO):
    log = logs.configure(ManualClock(), level=level)
log.debug("not shown")
log.info("shown")
logging.getLogger("spillway.store").info("child")
logging.getLogger("library").info("not shown")
logging.getLogger("library").warning("from a library")
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert [json.loads(line)["message"] for line in done.stderr.splitlines()] == ["shown", "child", "from a library"]
    assert done.stdout == ""
