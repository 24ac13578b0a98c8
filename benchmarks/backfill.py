"""Backfill on `spillway up`: a batch of chat lines while an online trace replays, against each of them alone.

    python benchmarks/backfill.py [--lines 20000] [--online-s 240] [--output docs/results/backfill.json] [--plot FILE.svg]

Two clusters of real, paced engines (a step of n sequences takes at least 20 + 0.2 n ms), 32 slots each. The objective is fixed after the
online trace has run alone: twice its p95 of TTFT and of TPOT. Density is output tokens a second of batch and online together, over what
the two pools make with all their slots taken (b*). The frontier repeats the mixed run, shorter, for several ceilings of batch.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from pathlib import Path
from typing import Any

from paced import Paced, brought_up
from spillway.report.figures import Series, line_plot

HEAVY = ("--profile", "poisson", "--rate", "12", "--burstiness", "0.5", "--input-tokens", "60", "--output-tokens", "60")
TRACE = ("--profile", "replay", "--trace", "azure-code", "--speed", "3", "--scale-input", "0.2", "--clip")
CEILINGS = (0.5, 0.7, 0.95, 1.0)
BURST = 40
SAMPLE_S = 45.0
FRONTIER_S = 45.0
SETTLE_S = 6.0


class Batch:
    """One that runs, by the command line that tenants use."""

    def __init__(self, up: Paced, lines: int) -> None:
        self._up = up
        with tempfile.NamedTemporaryFile("w", suffix=".jsonl") as file:
            for number in range(lines):
                body = {
                    "model": "npc",
                    "max_tokens": 24,
                    "messages": [{"role": "user", "content": f"Describe the rare golden key number {number}."}],
                }
                line = {"custom_id": f"line-{number}", "method": "POST", "url": "/v1/chat/completions", "body": body}
                file.write(json.dumps(line) + "\n")
            file.flush()
            said = subprocess.run(
                [
                    sys.executable, "-m", "spillway", "batch", "submit", file.name, "--json",
                    "--url", f"http://127.0.0.1:{up.port}", "--key", up.key,
                ],
                capture_output=True, text=True, check=True,
            )  # fmt: skip
        self.id = json.loads(said.stdout)["id"]

    def now(self, method: str = "GET", verb: str = "") -> dict[str, Any]:
        request = urllib.request.Request(
            f"http://127.0.0.1:{self._up.port}/v1/batches/{self.id}{verb}",
            headers={"authorization": f"Bearer {self._up.key}"},
            method=method,
        )
        with urllib.request.urlopen(request, timeout=10) as answer:
            return json.loads(answer.read())

    def tokens(self) -> int:
        return int(self.now()["usage"]["output_tokens"])

    def rate(self, seconds: float) -> float:
        """Output tokens a second, over so much time from now on."""
        began, before = time.monotonic(), self.tokens()
        pause(seconds)
        return (self.tokens() - before) / (time.monotonic() - began)

    def cancel(self) -> None:
        if self.now()["status"] != "completed":
            self.now("POST", "/cancel")
        while self.now()["status"] == "cancelling":
            pause(0.2)

    def ended(self) -> dict[str, Any]:
        while (now := self.now())["status"] in ("validating", "in_progress", "finalizing"):
            pause(0.5)
        return now


def pause(seconds: float) -> None:
    threading.Event().wait(seconds)


def with_ceiling(up: Paced, ceiling: float) -> None:
    """Takes effect by the reload that the file's change brings about; batch workers begin anew with it."""
    path = up.home / "up.yaml"
    text = path.read_text().partition("# batch\n")[0]
    path.write_text(
        f"{text}# batch\npriorities: {{interactive: {{ceiling: {max(0.9, ceiling)}}}, batch: {{ceiling: {ceiling}}}}}\n"
        "batch: {in_flight: 128}\nwaiting_room: {max_requests: 512}\n"
    )
    if refused := up.admin("POST", "/admin/v1/reload")["error"]:
        raise SystemExit(f"ceiling {ceiling}: {refused}")
    pause(SETTLE_S)


def online(up: Paced, load: tuple[str, ...], seconds: float, slo: str | None = None) -> dict[str, Any]:
    words = [*load, "--duration", str(seconds), "--drain", "30"]
    result, records = up.bench(*words, *(("--slo", slo) if slo else ()))
    met = result["goodput_rps"] * result["duration_s"] / max(1, result["requests"])
    return {
        "requests": result["requests"], "ok": result["ok"], "errors": result["errors"],
        "ttft_ms": result["ttft_ms"], "tpot_ms": result["tpot_ms"], "spilled_share": result["spilled_share"],
        "output_tokens_per_s": result["output_tokens_per_s"], "attainment": round(met, 4), "logged": len(records),
    }  # fmt: skip


def burst(up: Paced) -> dict[str, Any]:
    """So many requests at the same moment."""
    result, _ = up.bench("--profile", "throughput", "--max-requests", str(BURST), "--max-concurrency", str(BURST),
                         "--input-tokens", "20", "--output-tokens", "20")  # fmt: skip
    return {"requests": result["requests"], "ok": result["ok"], "ttft_ms": result["ttft_ms"]}


def yielded(up: Paced) -> float:
    with urllib.request.urlopen(f"http://127.0.0.1:{up.port + 1}/metrics", timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    return sum(
        float(line.rpartition(" ")[2])
        for line in lines
        if line.startswith("spillway_decisions_total") and "yielded" in line
    )


def measured(load: tuple[str, ...], lines: int, online_s: float, ceiling: float, others: list[float]) -> dict[str, Any]:
    with brought_up() as up:
        with_ceiling(up, ceiling)
        alone = online(up, load, online_s)
        burst_alone = burst(up)
        slo = f"ttft_ms={2 * alone['ttft_ms']['p95']:.1f},tpot_ms={2 * alone['tpot_ms']['p95']:.2f}"
        again = online(up, load, online_s / 2, slo)
        with_ceiling(up, 1.0)
        full = Batch(up, lines)
        pause(8.0)
        at_best = full.rate(SAMPLE_S)
        full.cancel()
        with_ceiling(up, ceiling)
        only = Batch(up, lines)
        began = time.monotonic()
        only_ended = only.ended()
        only_s = time.monotonic() - began
        print(
            f"online p95 {alone['ttft_ms']['p95']:.0f} ms; b* {at_best:.0f} tokens/s; batch alone {only_s:.0f} s",
            flush=True,
        )
        mixed = mixed_run(up, load, Batch(up, lines), online_s, slo)
        frontier = [{"ceiling": ceiling, **mixed["window"]}]
        for other in others:
            with_ceiling(up, other)
            frontier.append(
                {"ceiling": other, **mixed_run(up, load, Batch(up, lines), FRONTIER_S, slo, until_end=False)["window"]}
            )
            print(frontier[-1], flush=True)
        for one in frontier:
            one["density"] = round((one["batch_tokens_per_s"] + one["online"]["output_tokens_per_s"]) / at_best, 3)
        return {
            "lines": lines, "ceiling": ceiling, "objective": slo, "throughput_at_b_star": round(at_best, 1),
            "online_alone": again, "online_before": alone, "burst_alone": burst_alone,
            "batch_alone": {
                "seconds": round(only_s, 1), "tokens_per_s": round(only_ended["usage"]["output_tokens"] / only_s, 1),
                "counts": only_ended["request_counts"],
            },
            "both": mixed,
            "ttft_ratio_p50": round(mixed["window"]["online"]["ttft_ms"]["p50"] / alone["ttft_ms"]["p50"], 3),
            "frontier": sorted(frontier, key=lambda one: one["ceiling"]),
        }  # fmt: skip


def mixed_run(
    up: Paced, load: tuple[str, ...], batch: Batch, online_s: float, slo: str, *, until_end: bool = True
) -> dict[str, Any]:
    pause(8.0)
    began, before, yields = time.monotonic(), batch.tokens(), yielded(up)
    shown = online(up, load, online_s, slo)
    window_s = time.monotonic() - began
    rate = (batch.tokens() - before) / window_s
    window = {"online": shown, "batch_tokens_per_s": round(rate, 1), "yielded": yielded(up) - yields}
    if not until_end:
        batch.cancel()
        return {"window": window}
    struck = burst(up)
    ended = batch.ended()
    return {"window": window, "burst": struck, "counts": ended["request_counts"]}


def plotted(result: dict[str, Any]) -> str:
    """Density against what it costs online requests, a point for each ceiling."""
    by_density = sorted(result["frontier"], key=lambda one: one["density"])
    density = [one["density"] for one in by_density]
    alone = result["online_before"]

    def over_alone(what: str, cut: str) -> Series:
        ratios = [one["online"][what][cut] / alone[what][cut] for one in by_density]
        return Series(f"{what.removesuffix('_ms').upper()} {cut} over online alone", density, ratios, dots=True)

    lines = [over_alone("ttft_ms", "p50"), over_alone("ttft_ms", "p95"), over_alone("tpot_ms", "p95")]
    attained = [one["online"]["attainment"] for one in by_density]
    objective = Series("objective (2 × p95 alone)", [density[0], density[-1]], [2.0, 2.0], dashed=True)
    attainment = Series("attainment", density, attained, dots=True)
    return line_plot([*lines, attainment, objective], "tokens a second of batch and online, over b*", "")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lines", type=int, default=20_000)
    parser.add_argument("--online-s", type=float, default=240.0)
    parser.add_argument(
        "--heavy", action="store_true", help="instead of the trace: bursty arrivals, a third of what the clusters make"
    )
    parser.add_argument("--ceiling", type=float, default=0.9)
    parser.add_argument("--others", type=float, nargs="*", default=CEILINGS, help="more ceilings, for the frontier")
    parser.add_argument("--output", type=Path)
    parser.add_argument("--plot", type=Path, help="the frontier, as SVG")
    arguments = parser.parse_args()
    load = HEAVY if arguments.heavy else TRACE
    result = measured(load, arguments.lines, arguments.online_s, arguments.ceiling, arguments.others)
    if arguments.plot is not None:
        arguments.plot.write_text(plotted(result) + "\n")
    text = json.dumps(result, indent=1) + "\n"
    if arguments.output is None:
        print(text)
    else:
        arguments.output.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
