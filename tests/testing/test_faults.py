"""How faults are written down, and which requests they strike."""

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spillway.core.errors import ConfigError
from spillway.testing.faults import Fault, FaultKind, Rule, parse_fault, parse_rule, parse_rules
from spillway.testing.rng import SeededRng
from spillway.testing.script import FAILURE_TYPES, Failures, Script

CHAT = "/v1/chat/completions"


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("500", Rule(kind=FaultKind.SERVER_ERROR)),
        ("429:2", Rule(kind=FaultKind.RATE_LIMITED, retry_after_s=2)),
        ("cut:3", Rule(kind=FaultKind.CUT, after_tokens=3)),
        ("stall:4,share=0.1", Rule(kind=FaultKind.STALL, after_tokens=4, share=0.1)),
        ("stall:4:delay_s=2", Rule(kind=FaultKind.STALL, after_tokens=4, delay_s=2)),
        ("500:count=1@10-", Rule(kind=FaultKind.SERVER_ERROR, count=1, from_s=10)),
        ("503@5-65", Rule(kind=FaultKind.UNAVAILABLE, from_s=5, to_s=65)),
        ("503@-65", Rule(kind=FaultKind.UNAVAILABLE, to_s=65)),
        ("flap@0-60", Rule(kind=FaultKind.SERVER_ERROR, period_s=4, down_s=2, from_s=0, to_s=60)),
        ("flap:kind=reset,period_s=4,down_s=1@0-60",
         Rule(kind=FaultKind.RESET, period_s=4, down_s=1, from_s=0, to_s=60)),
        ('{"kind":"cut","after_tokens":3,"model":"m"}', Rule(kind=FaultKind.CUT, after_tokens=3, model="m")),
    ],
)  # fmt: skip
def test_texts(text: str, rule: Rule) -> None:
    assert parse_rule(text) == rule


@pytest.mark.parametrize(
    "text", ["", "nonsense", "500:7", "cut:x", "cut:colour=red", "503@5", "503@a-b", "{", "{}", "[1]"]
)
def test_what_is_no_fault_is_named(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_rule(text)
    assert repr(text) in str(caught.value)


def test_a_script_holds_texts_and_mappings() -> None:
    rules = parse_rules(["503@5-65", {"kind": "cut", "after_tokens": 1}])
    assert [rule.kind for rule in rules] == [FaultKind.UNAVAILABLE, FaultKind.CUT]
    with pytest.raises(ConfigError):
        parse_rules([{"kind": "cut", "after": 1}])
    with pytest.raises(ConfigError):
        parse_rules("503")


@given(kind=st.sampled_from(FaultKind), after=st.integers(0, 9), delay_s=st.floats(0, 9), size=st.integers(1, 99))
@settings(deadline=None)
def test_json_goes_there_and_back(kind: FaultKind, after: int, delay_s: float, size: int) -> None:
    fault = Fault(kind=kind, after_tokens=after, delay_s=delay_s, size_bytes=size)
    assert parse_fault(msgspec.json.encode(fault).decode()) == fault


def struck(script: Script, now_s: float, *, path: str = CHAT, model: str = "m", generates: bool = True) -> str | None:
    fault = script.pick(path, model, now_s, generates=generates)
    return fault.kind.value if fault else None


def test_the_time_line_starts_when_the_script_is_set() -> None:
    script = Script(SeededRng(0))
    script.replace([parse_rule("503@5-10")], now_s=100.0)
    assert [struck(script, at_s) for at_s in (100, 104.9, 105, 109.9, 110)] == [None, None, "503", "503", None]


def test_an_endpoint_that_flaps() -> None:
    script = Script(SeededRng(0))
    script.replace([parse_rule("flap:period_s=4,down_s=1@2-60")], now_s=0.0)
    down = [at_s for at_s in range(64) if struck(script, at_s)]
    assert down == list(range(2, 60, 4))


def test_count_share_model_and_path() -> None:
    script = Script(SeededRng(3))
    script.replace(
        [parse_rule(text) for text in ("500:count=2", "cut:1,model=n", "429:share=0.25", "503:path=/health")], 0
    )
    assert [struck(script, 1) for _ in range(2)] == ["500", "500"]
    assert struck(script, 1, model="n") == "cut"
    hits = sum(struck(script, 1) == "429" for _ in range(4000))
    assert hits == pytest.approx(1000, abs=120)
    assert struck(script, 1, path="/health", generates=False) == "503"
    assert struck(script, 1, path="/metrics", generates=False) is None
    assert script.struck == (2, 1, hits, 1)


def test_failures_by_chance() -> None:
    script = Script(SeededRng(5))
    assert struck(script, 0) is None
    script.failures = Failures(failure_injection_rate=30.0, failure_types=("rate_limit", "server_error"))
    kinds = [struck(script, 0) for _ in range(4000)]
    assert set(kinds) == {None, "429", "503"}
    assert 4000 - kinds.count(None) == pytest.approx(1200, abs=150)
    script.failures = Failures(failure_injection_rate=100.0)
    assert {struck(script, 0) for _ in range(500)} == {kind.value for kind in FAILURE_TYPES.values()}


def test_unknown_failures_are_refused() -> None:
    with pytest.raises(ValueError, match="rate must be"):
        Failures(failure_types=("sunspots",))
    with pytest.raises(ValueError, match="rate must be"):
        Failures(failure_injection_rate=101.0)
