"""`spillway calibrate` against an engine whose line is known exactly, and against servers that give no line."""

import asyncio
import json
from pathlib import Path

import pytest

from spillway.testing.processes import started
from spillway.testing.spec import UpstreamSpec
from spillway.testing.upstream import UpstreamDouble

pytestmark = pytest.mark.server

MODEL = Path(__file__).resolve().parents[2] / "models/npc-1.9m/openvino"
OUTPUT_TOKENS = 30
POOL = """
clusters: {{home: {{region: here}}}}
pools:
  near:
    model: npc-1.9m
    cluster: home
    endpoints: ["{url}"]
    limit: 16
{capacity}
models:
  npc: {{tiers: [[near]]}}
"""


@pytest.mark.slow
def test_the_pace_of_an_engine_is_found(tmp_path: Path) -> None:
    """Steps of 10 ms + 2 ms · n: 30 tokens take 0.3 s + 0.06 s · b, and a little for the prompt."""
    pace = ("--pace-ms", "10", "--pace-per-seq-ms", "2")
    block, settings = tmp_path / "capacity.yaml", tmp_path / "spillway.yaml"
    with started("engine", "--model", str(MODEL), "--name", "npc-1.9m", "--port", "0", *pace, "--json") as engine:
        url = json.loads(engine.wait_for(r"\{.*\}", deadline_s=60).group())["url"]
        settings.write_text(POOL.format(url=url, capacity=""))
        words = (
            "--concurrency",
            "1,3,6",
            "--duration-s",
            "4",
            "--input-tokens",
            "30",
            "--output-tokens",
            str(OUTPUT_TOKENS),
        )
        with started(
            "calibrate", "near", "--config", str(settings), *words, "--slo", "ttft_ms=500,tpot_ms=30",
            "--write", str(block), "--json",
        ) as command:  # fmt: skip
            assert command.wait(deadline_s=60) == 0, command.stderr
            found = json.loads(command.stdout)
    assert found["x_s"] == pytest.approx(0.3, rel=0.15)
    assert found["y_s"] == pytest.approx(0.06, rel=0.15)
    assert found["reference"]["output_tokens"] == OUTPUT_TOKENS
    assert found["b_star"] == pytest.approx(
        (0.5 + 0.03 * 29 - found["x_s"]) / found["y_s"], rel=1e-3
    )  # x and y are rounded
    assert len(found["points"]) == 3

    indented = "".join(f"    {line}\n" for line in block.read_text().splitlines())
    settings.write_text(POOL.format(url=url, capacity=indented))
    with started("config", "check", str(settings)) as check:
        assert check.wait() == 0, check.stderr


def against_upstream(*rules: str, words: tuple[str, ...] = ()) -> tuple[int, str]:
    async def work() -> tuple[int, str]:
        async with UpstreamDouble(UpstreamSpec(time_to_first_token_s=0.01, output_tokens=5)) as upstream:
            upstream.misbehave(*rules)
            with started("calibrate", "--url", upstream.url, "--model", "fake", "--duration-s", "1", *words) as command:
                return await asyncio.to_thread(command.wait), command.stderr

    return asyncio.run(work())


def test_a_wrong_key_ends_the_sweep_before_it_begins() -> None:
    status, said = against_upstream("401", words=("--concurrency", "1,2"))
    assert status == 1
    assert "invalid_api_key" in said
    assert "at once" not in said


def test_a_pool_whose_every_answer_fails() -> None:
    status, said = against_upstream("503", words=("--concurrency", "1,2", "--chars-per-token", "4"))
    assert status == 1
    assert "1 at once: of" in said
    assert "all fail, the first with" in said


def test_nobody_there() -> None:
    with started("calibrate", "--url", "http://127.0.0.1:9", "--model", "m", "--duration-s", "1") as command:
        assert command.wait() == 1
        assert "first request" in command.stderr


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("near",),
        ("near", "--url", "http://127.0.0.1:9"),
        ("--url", "http://127.0.0.1:9"),
        ("--url", "http://127.0.0.1:9", "--model", "m", "--concurrency", "4,2"),
        ("--url", "http://127.0.0.1:9", "--model", "m", "--duration-s", "nan"),
    ],
)
def test_usage(words: tuple[str, ...]) -> None:
    with started("calibrate", *words) as command:
        assert command.wait() == 2
        assert "calibrate" in command.stderr
