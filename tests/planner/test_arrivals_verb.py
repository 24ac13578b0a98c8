"""`spillway simulate` with traces of every kind: by short name, a folder, our own format."""

import json
from pathlib import Path

import pytest

from spillway.cli.main import main

CONFIG = """
clusters: {east: {region: us-east, rtt_ms: 1}}
pools:
  large@east: {cluster: east, endpoints: ["http://127.0.0.1:9101"], model: m, limit: 24, CAPACITY}
  small@east: {cluster: east, endpoints: ["http://127.0.0.1:9102"], model: m, limit: 24, CAPACITY}
models:
  large: {tiers: [["large@east"]]}
  small: {tiers: [["small@east"]]}
""".replace(
    "CAPACITY", "capacity: {x_s: 0.9, y_s: 0.02, max_sequences: 64, reference: {input_tokens: 200, output_tokens: 80}}"
)


@pytest.fixture
def words(tmp_path: Path) -> list[str]:
    config = tmp_path / "spillway.yaml"
    config.write_text(CONFIG)
    return ["simulate", "--config", str(config), "--json", "--trace"]


def figures(capsys: pytest.CaptureFixture[str]) -> dict[str, object]:
    return json.loads(capsys.readouterr().out)


def test_servegen_at_a_rate(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    asked = [*words, "servegen", "--rate", "5", "--from", "260000", "--duration", "300", "--speed", "2"]
    assert main([*asked, "--seed", "3"]) == 0
    first = figures(capsys)
    assert first["arrivals"] == pytest.approx(5 * 2 * 300, rel=0.25)
    assert main([*asked, "--seed", "3"]) == 0
    again = figures(capsys)
    assert again["policies"] == first["policies"]
    assert main([*asked, "--seed", "4"]) == 0
    assert figures(capsys)["arrivals"] != first["arrivals"]


def test_a_folder_with_a_bad_line(words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "chunk-0-trace.csv").write_text("0,3.0,1.2,Gamma,0.7,0.9\nx\n")
    (tmp_path / "chunk-0-dataset.json").write_text('{"0": {"input_tokens": "{9: 1.0}", "output_tokens": "{3: 1.0}"}}')
    assert main([*words, str(tmp_path), "--duration", "600"]) == 0
    out, err = capsys.readouterr()
    assert "line 2: chunk-0-trace.csv" in err
    assert (json.loads(out)["bad_lines"], json.loads(out)["arrivals"] > 1000) == (1, True)


def test_a_trace_at_a_rate(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*words, "mooncake", "--rate", "8", "--duration", "100"]) == 0
    assert figures(capsys)["arrivals"] == pytest.approx(800, rel=0.2)


def test_a_trace_names_its_models(words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trace = tmp_path / "trace.jsonl"
    lines = [
        {"at_s": n, "input_tokens": 100, "output_tokens": 200, "model": "small" if n < 3 else "gpt-4"} for n in range(9)
    ]
    trace.write_text("\n".join(json.dumps(line) for line in lines))
    assert main([*words, str(trace), "--model", "large"]) == 0
    result = figures(capsys)
    policies = result["policies"]
    assert isinstance(policies, dict)
    loads = {name: pool["mean_load"] for name, pool in policies["spillway"]["pools"].items()}
    assert loads["large@east"] > loads["small@east"] > 0


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (["servegen", "--rate", "1", "--duration", "0.001"], "no client sends anything"),
        (["azure-code", "--from", "5"], "--from is for ServeGen"),
        (["servegen-lengths"], "no format is known"),
        (["nowhere.csv"], "no trace 'nowhere.csv'"),
    ],
)
def test_what_cannot_be_simulated(
    words: list[str], asked: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*words, *asked]) == 2
    assert said in capsys.readouterr().err
