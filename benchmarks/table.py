"""From rounds to one figure each, and to the table that is shown. Also prints a result file: python benchmarks/table.py [FILE]."""

import json
import statistics
import sys
from pathlib import Path

COLUMNS = (
    # title, scenario, figure, divisor, digits
    ("µs/request, 1 conn.", "requests_1", "cpu_us", 1, 1),
    ("32 conn.", "requests_32", "cpu_us", 1, 1),
    ("256 conn.", "requests_256", "cpu_us", 1, 1),
    ("33 kB prompt", "prompt_33k_32", "cpu_us", 1, 1),
    ("262 kB prompt", "prompt_262k_32", "cpu_us", 1, 1),
    ("µs/event, 50 ms", "streams_1000_50ms", "cpu_us", 1, 1),
    ("20 ms", "streams_1000_20ms", "cpu_us", 1, 1),
)  # fmt: skip

Figures = dict[str, dict[str, float | None]]
"""Scenario, figure, value; None where there was nothing to measure."""


def summary(rounds: list[dict[str, Figures]]) -> dict[str, Figures]:
    """Medians over the rounds; of stalls also the longest. Ratios to nginx, and what is added to a direct run, where those ran."""
    contenders: dict[str, Figures] = {}
    for name in rounds[0]:
        contenders[name] = {
            scenario: {figure: _median([one[name][scenario][figure] for one in rounds]) for figure in figures}
            for scenario, figures in rounds[0][name].items()
        }
        for scenario, figures in contenders[name].items():
            if "delay_max_us" in figures:
                figures["longest_stall_us"] = max(one[name][scenario]["delay_max_us"] or 0 for one in rounds)
    for name, figures in contenders.items():
        for scenario, one in figures.items():
            _compare(one, contenders, scenario, is_direct=name == "direct")
    return contenders


def _median(values: list[float | None]) -> float | None:
    measured = [value for value in values if value is not None]
    return statistics.median(measured) if measured else None


def _compare(one: dict[str, float | None], contenders: dict[str, Figures], scenario: str, *, is_direct: bool) -> None:
    base = contenders.get("nginx", {}).get(scenario, {}).get("cpu_us")
    if base and not is_direct and (cpu_us := one.get("cpu_us")) is not None:
        one["cpu_to_nginx"] = cpu_us / base
    direct = contenders.get("direct", {}).get(scenario, {}).get("ttft_p50_us")
    if direct is not None and not is_direct and (ttft_us := one.get("ttft_p50_us")) is not None:
        one["added_ttft_p50_us"] = ttft_us - direct


def markdown(contenders: dict[str, Figures]) -> str:
    """CPU µs with the ratio to nginx in brackets; requests per second; added time to first token; stalls; memory."""
    shown = [column for column in COLUMNS if any(column[1] in figures for figures in contenders.values())]
    titles = [
        "gateway",
        "requests/s",
        *(title for title, *_ in shown),
        "added TTFT p50 ms",
        "longest stall ms",
        "RSS peak MB",
    ]
    lines = [f"| {' | '.join(titles)} |", f"|{'---|' * len(titles)}"]
    for name, figures in contenders.items():
        cells = [name, _cell(figures, "requests_32", "per_s", 1, 0)]
        cells += [
            _with_ratio(figures, scenario, figure, divisor, digits) for _, scenario, figure, divisor, digits in shown
        ]
        cells += [
            _cell(figures, "streams_1000_50ms", "added_ttft_p50_us", 1000, 2),
            _cell(figures, "streams_1000_50ms", "longest_stall_us", 1000, 0),
            _cell(figures, "memory", "rss_peak_mb", 1, 0),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _with_ratio(figures: Figures, scenario: str, figure: str, divisor: float, digits: int) -> str:
    text = _cell(figures, scenario, figure, divisor, digits)
    ratio = figures.get(scenario, {}).get("cpu_to_nginx")
    errors = figures.get(scenario, {}).get("errors")
    return text + (f" ({ratio:.2f}×)" if ratio else "") + (f" {errors:.0f} errors" if errors else "")


def _cell(figures: Figures, scenario: str, figure: str, divisor: float, digits: int) -> str:
    value = figures.get(scenario, {}).get(figure)
    return "–" if value is None else f"{value / divisor:,.{digits}f}"


if __name__ == "__main__":
    default = Path(__file__).resolve().parent.parent / "docs" / "results" / "gateway-bench.json"
    print(markdown(json.loads(Path(sys.argv[1] if len(sys.argv) > 1 else default).read_text())["contenders"]))
