"""What makes no sense is said before anything is sent, with exit status 2."""

from pathlib import Path

import pytest

from spillway.cli.main import main
from spillway.core.errors import UsageError
from spillway.load.options import BenchOptions, checked
from spillway.load.requirement import judge, parse_requirement
from spillway.load.schedule import Profile
from spillway.load.trace_files import SHORT_NAMES, load_rates, load_trace, locate
from spillway.wire.traces import Trace, TraceError, TraceRecord


@pytest.mark.parametrize(
    "words",
    [
        ["--profile", "constant"],
        ["--profile", "synchronous", "--rate", "3"],
        ["--profile", "concurrent", "--rate", "1.5"],
        ["--profile", "sweep", "--rate", "2"],
        ["--profile", "replay"],
        ["--profile", "replay", "--trace", "no-such-file"],
        ["--rate", "-1"],
        ["--rate", "1", "--duration", "0"],
        ["--rate", "1", "--duration", "5", "--warmup", "5"],
        ["--rate", "1", "--burstiness", "nan"],
        ["--rate", "1", "--slo", "nonsense=3"],
        ["--rate", "1", "--slo", "ttft_ms=3", "--no-stream"],
        ["--rate", "1", "--require", "goodput_rps"],
        ["--rate", "1", "--require", "goodputt>=1"],
        ["--rate", "1", "--require", "ttft_ms.p51>=1"],
        ["--rate", "1", "--require", "profile>=1"],
        ["--rate", "1", "--url", "nowhere"],
        ["--rate", "1", "--extra-body", "[]"],
        ["--rate", "1", "--extra-body", '{"stream": false}'],
        ["--rate", "1", "--header", "x"],
        ["--rate", "1", "--keys-file", "no-such-file"],
        ["--rate", "1", "--html", "no/such/folder/page.html"],
        ["--rate", "1", "--sessions", "-1"],
        ["--rate", "1", "--chars-per-token", "0"],
    ],
)
def test_exit_status_2(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", *words]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith("spillway bench: ")


def test_an_unknown_profile_is_argparses() -> None:
    with pytest.raises(SystemExit) as caught:
        main(["bench", "--profile", "wild"])
    assert caught.value.code == 2


def test_a_duration_is_filled_in() -> None:
    assert checked(BenchOptions(Profile.SYNCHRONOUS), streamed=True).duration_s == 30.0
    assert checked(BenchOptions(Profile.SYNCHRONOUS, max_requests=5), streamed=True).duration_s is None


def test_a_replay_lasts_as_long_as_its_trace() -> None:
    trace = Trace([TraceRecord(0.0, 1, 1), TraceRecord(60.0, 1, 1)])
    whole = checked(BenchOptions(Profile.REPLAY, trace=trace, speed=2.0), streamed=True)
    assert whole.duration_s is not None
    assert whole.duration_s > 30.0  # the last request belongs to it
    assert whole.duration_s == pytest.approx(30.0)
    assert checked(BenchOptions(Profile.REPLAY, trace=trace, duration_s=10.0), streamed=True).duration_s == 10.0


RESULT = {"goodput_rps": 9.5, "ttft_ms": {"p99": None, "p50": 3}, "errors": {"cut": 2}}


@pytest.mark.parametrize(
    ("text", "met"),
    [
        ("goodput_rps>=9.5", True),
        ("goodput_rps > 9.5", False),
        ("ttft_ms.p50<=3", True),
        ("ttft_ms.p99<1000", False),  # nothing was measured
        ("errors.cut==2", True),
        ("errors.timeout==0", True),
        ("errors.timeout<0", False),
    ],
)
def test_requirements(text: str, met: bool) -> None:
    assert judge(parse_requirement(text), RESULT).met is met


def test_a_figure_that_no_result_has() -> None:
    with pytest.raises(UsageError):
        judge(parse_requirement("ttft_ms.p50.more>1"), RESULT)


@pytest.mark.parametrize(("name", "records"), [("azure-code", 8819), ("mooncake", 3993)])
def test_traces_that_come_along(name: str, records: int) -> None:
    trace = load_trace(name)
    assert (len(trace.records), trace.bad) == (records, 0)
    assert load_trace(str(locate(name))).records[:9] == trace.records[:9]


def test_rates_that_come_along() -> None:
    rates = load_rates("servegen-rates")
    assert (len(rates.bins), rates.bad) == (40095, 0)
    assert len({each.client for each in rates.bins}) == 43


def test_every_trace_names_its_source_and_licence() -> None:
    folder = locate("mooncake").parent
    text = (folder / "README.md").read_text()
    for file in SHORT_NAMES.values():
        assert f"`{file}`" in text
    for licence in folder.glob("LICENSE-*"):
        assert f"`{licence.name}`" in text


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    damaged = tmp_path / "trace.csv.gz"
    damaged.write_bytes(locate("azure-code").read_bytes()[:2000])
    with pytest.raises(TraceError, match=str(damaged)):
        load_trace(str(damaged))
    binary = tmp_path / "trace.csv"
    binary.write_bytes(bytes(range(256)) * 100)
    with pytest.raises(TraceError, match=str(binary)):
        load_trace(str(binary))
