"""`spillway simulate` from its words to what it prints and its exit status."""

import json
from pathlib import Path

import msgspec
import pytest

from spillway.cli.main import main
from spillway.core.outcome import Outcome
from spillway.gateway.journal import checksum_of
from spillway.traffic.controller import Controller
from spillway.traffic.events import Configured, Ended, Event
from tests.planner.worlds import arrivals, world

CONFIG = """
clusters: {east: {region: us-east, rtt_ms: 1}, west: {region: us-west, rtt_ms: 60}}
pools:
  npc@east: {cluster: east, endpoints: ["http://127.0.0.1:9101"], model: m, limit: 24, CAPACITY}
  npc@west: {cluster: west, endpoints: ["http://127.0.0.1:9102"], model: m, limit: 24, CAPACITY}
models:
  npc: {tiers: [["npc@east"], ["npc@west"]], slo: {ttft_ms: 1000, tpot_ms: 60}}
"""
CAPACITY = "capacity: {x_s: 0.9, y_s: 0.02, max_sequences: 64, reference: {input_tokens: 200, output_tokens: 80}}"


@pytest.fixture
def words(tmp_path: Path) -> list[str]:
    config, trace = tmp_path / "spillway.yaml", tmp_path / "trace.jsonl"
    config.write_text(CONFIG.replace("CAPACITY", CAPACITY))
    lines = [
        json.dumps({"timestamp": 50 * n, "input_length": 200, "output_length": 40 + n % 80, "hash_ids": [n % 9]})
        for n in range(1000)
    ]
    lines[5] = '{"timestamp": 1, "input_le'
    trace.write_text("\n".join(lines))
    return ["simulate", "--config", str(config), "--trace", str(trace)]


def test_figures_as_promised_and_the_same_again(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    asked = [*words, "--json", "--speed", "2", "--gateways", "2", "--gauge-age-s", "1", "--seed", "7", "--tenants", "5"]
    results = []
    for _ in range(2):
        assert main(asked) == 0
        out, err = capsys.readouterr()
        assert "line 6:" in err
        result = json.loads(out)
        result.pop("wall_s")
        results.append(result)
    assert results[0] == results[1]
    assert (results[0]["arrivals"], results[0]["bad_lines"]) == (999, 1)
    figures = results[0]["policies"]["spillway"]
    names = {
        "goodput_rps", "attainment", "spilled_share", "shed_share", "hosted_usd", "reversals_per_min", "jain", "pools",
    }  # fmt: skip
    assert names <= set(figures)
    assert set(figures["pools"]) == {"npc@east", "npc@west"}
    assert set(figures["pools"]["npc@east"]) == {"mean_load", "sd_load", "max_load"}
    assert figures["outcomes"]["ok"] > 900


def test_alternatives_play_the_same_arrivals_with_the_best_of_their_settings(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert (
        main([*words, "--json", "--speed", "3", "--duration", "10", "--policy", "threshold", "--policy", "local_only"])
        == 0
    )
    result = json.loads(capsys.readouterr().out)
    assert set(result["policies"]) == set(result["settings"]) == {"threshold", "local_only"}
    assert set(result["settings"]["threshold"]) == {"leave", "back"}
    alone, spread = (result["policies"][name] for name in ("local_only", "threshold"))
    assert alone["spilled_share"] == 0.0 < spread["spilled_share"]
    assert spread["goodput_rps"] > alone["goodput_rps"]


def test_the_example_shows_load_moving_on(capsys: pytest.CaptureFixture[str]) -> None:
    example = Path(__file__).parents[2] / "examples" / "simulate.yaml"
    assert main(["simulate", "--config", str(example), "--trace", "azure-code", "--speed", "6", "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)["policies"]["spillway"]
    assert 0.2 < figures["spilled_share"] < 0.9
    assert figures["hosted_usd"] > 0
    assert figures["attainment"]["interactive"] > 0.9


def test_a_page_that_needs_nothing_else(words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "page.html"
    assert main([*words, "--html", str(page), "--fail", "npc@east@10-20", "--engine", "stepped"]) == 0
    html = page.read_text()
    assert all(text in html for text in ("npc@east", "npc@west", "Policy spillway", "Jain of tenants", "<svg"))
    assert 'src="http' not in html
    assert "999 arrivals" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (["--policy", "none"], "no policy 'none'"),
        (["--fail", "npc@nowhere@1-2"], "'npc@nowhere', which does not exist"),
        (["--model", "none"], "no model 'none'"),
        (["--trace", "missing.csv"], "no trace 'missing.csv'"),
        (["--html", "/nowhere/at/all.html"], "no such folder"),
    ],
)
def test_mistakes_are_named(words: list[str], change: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*words, *change]) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    "change", [["--speed", "0"], ["--speed", "nan"], ["--gateways", "0"], ["--fail", "npc@east"], ["--priority", "x=1"]]
)
def test_values_that_make_no_sense(words: list[str], change: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main([*words, *change])
    assert stopped.value.code == 2
    assert change[0] in capsys.readouterr().err


def test_without_a_capacity_record_there_is_nothing_to_simulate(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "spillway.yaml"
    config.write_text(CONFIG.replace(", CAPACITY", ""))
    assert main(words) == 2
    assert "no capacity record" in capsys.readouterr().err


def journal_of() -> list[bytes]:
    brain = Controller()
    events: list[tuple[float, Event]] = [(0.0, Configured(world().gateways[0].fleet))]
    asked = arrivals(20, 5.0, 1)
    events += [(arrival.at_s, arrival.arrived) for arrival in asked]
    events += [(60.0, Ended(arrival.arrived.request, Outcome.OK, 100, 50)) for arrival in asked]
    return [msgspec.json.encode((now, event, checksum_of(brain.handle(event, now)))) for now, event in events]


def test_a_journal_has_the_same_effects_and_a_changed_one_has_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, lines = tmp_path / "journal", journal_of()
    path.write_bytes(b"\n".join(lines) + b"\n")
    assert main(["simulate", "--journal", str(path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"events": 41, "differing": []}
    now, event, checksum = msgspec.json.decode(lines[3])
    lines[3] = msgspec.json.encode((now, event, checksum ^ 1))
    path.write_bytes(b"\n".join(lines) + b"\n")
    assert main(["simulate", "--journal", str(path)]) == 1
    assert "differ in 1, first in lines 4" in capsys.readouterr().out
