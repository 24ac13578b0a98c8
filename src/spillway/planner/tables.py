"""The comparison as Markdown."""

from collections.abc import Mapping, Sequence

from spillway.planner.comparison import OURS
from spillway.planner.results import PolicyResult

HEAD = ("policy", "setting", "goodput /s", "realtime in SLO", "spilled", "hosted $", "turns /min", "shed", "Jain")


def table(rows: Mapping[str, tuple[str, PolicyResult]]) -> str:
    """`rows`: by policy its setting and its figures. The best goodput is bold."""
    top = max(result.goodput_rps for _, result in rows.values())
    lines = [_line(HEAD), _line(["---"] * len(HEAD))]
    for name, (setting, result) in rows.items():
        goodput = f"{result.goodput_rps:.2f}"
        lines.append(
            _line(
                (
                    f"**{name}**" if name == OURS else name,
                    setting,
                    f"**{goodput}**" if result.goodput_rps == top else goodput,
                    _percent(result.attainment.get("realtime", 1.0)),
                    _percent(result.spilled_share),
                    f"{result.hosted_usd:.2f}",
                    f"{result.reversals_per_min:.1f}",
                    _percent(result.shed_share),
                    f"{result.jain:.3f}",
                )
            )
        )
    return "\n".join(lines)


def pooling_table(figures: Mapping[str, Mapping[str, float]]) -> str:
    """By unevenness of arrivals: loads that keep the objective, and what spilling saves."""
    lines = [_line(("gaps", "load carried alone", "with spill-over", "capacity saved")), _line(["---"] * 4)]
    lines += [
        _line(
            (
                name,
                f"{one['load_alone']:.2f}",
                f"{one['load_with_spill']:.2f}",
                f"**{100 * one['capacity_saved']:.0f} %**",
            )
        )
        for name, one in figures.items()
    ]
    return "\n".join(lines)


def setting_text(setting: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:g}" for name, value in setting.items()) or "—"


def between(page: str, name: str, text: str) -> str:
    """The page with what stands between `<!-- name -->` and `<!-- /name -->` replaced. Raises ValueError where these are missing."""
    begin, end = f"<!-- {name} -->", f"<!-- /{name} -->"
    first, last = page.index(begin) + len(begin), page.index(end)
    return f"{page[:first]}\n{text}\n{page[last:]}"


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"
