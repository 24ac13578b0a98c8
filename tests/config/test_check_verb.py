"""`spillway config`: exit status 0 or 2, text for people or JSON."""

import json
from pathlib import Path

import pytest
from tests.config.texts import GOOD

from spillway.cli.main import main
from spillway.config import schema

RIGHT = GOOD.replace("${DEMO_KEY}", "sk-0123456789abcdef").replace("${HOSTED_KEY}", "x")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "spillway.yaml"
    path.write_text(RIGHT)
    return path


def test_a_right_file(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "check", str(file)]) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"{file}: fine\n")
    assert "model npc: near → far" in out


def test_a_right_file_as_json(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "check", str(file), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["ok"] is True
    assert told["problems"] == []
    assert told["summary"]["pools"]["near"]["limit"] == 32


def test_a_wrong_file(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file.write_text(RIGHT.replace("limit: 32", "limit: -3"))
    assert main(["config", "check", str(file)]) == 2
    streams = capsys.readouterr()
    assert streams.err == f"{file}:10:12: pools.near.limit: expected an integer ≥ 0 or 'auto', found -3\n"
    assert streams.out == ""


def test_a_wrong_file_as_json(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file.write_text(RIGHT.replace("limit: 32", "limit: -3"))
    assert main(["config", "check", str(file), "--json"]) == 2
    told = json.loads(capsys.readouterr().out)
    assert told["ok"] is False
    assert [(one["line"], one["column"], one["path"]) for one in told["problems"]] == [(10, 12, "pools.near.limit")]


def test_schema(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "schema"]) == 0
    assert json.loads(capsys.readouterr().out) == json.loads(json.dumps(schema()))
