"""Prometheus text format 0.0.4. Pure."""

from spillway.telemetry.catalog import CATALOG, Kind, Spec
from spillway.telemetry.metrics import Labels, Report, Sample, Spread

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def render(report: Report, catalog: dict[str, Spec] = CATALOG) -> str:
    """Every metric of the catalogue, also those without any series yet."""
    lines: list[str] = []
    for spec in catalog.values():
        lines.append(f"# HELP {spec.name} {_escaped_help(spec.help)}")
        lines.append(f"# TYPE {spec.name} {spec.kind.value}")
        match spec.kind:
            case Kind.COUNTER:
                _samples(lines, spec, report.counters.get(spec.name, ()))
            case Kind.GAUGE:
                _samples(lines, spec, report.gauges.get(spec.name, ()))
            case Kind.HISTOGRAM:
                _spreads(lines, spec, report.histograms.get(spec.name, ()))
    return "\n".join(lines) + "\n"


def _samples(lines: list[str], spec: Spec, samples: tuple[Sample, ...]) -> None:
    lines += [f"{spec.name}{_labels(spec.labels, sample.labels)} {_number(sample.value)}" for sample in samples]


def _spreads(lines: list[str], spec: Spec, spreads: tuple[Spread, ...]) -> None:
    names = (*spec.labels, "le")
    for spread in spreads:
        cumulated = 0
        for bound, count in zip((*spec.buckets, float("inf")), spread.counts, strict=True):
            cumulated += count
            labels = _labels(names, (*spread.labels, _number(bound)))
            lines.append(f"{spec.name}_bucket{labels} {cumulated}")
        lines.append(f"{spec.name}_sum{_labels(spec.labels, spread.labels)} {_number(spread.sum)}")
        lines.append(f"{spec.name}_count{_labels(spec.labels, spread.labels)} {cumulated}")


def _labels(names: Labels, values: Labels) -> str:
    if not names:
        return ""
    return "{" + ",".join(f'{name}="{_escaped(value)}"' for name, value in zip(names, values, strict=True)) + "}"


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')


def _escaped_help(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n")


def _number(value: float) -> str:
    if value == float("inf"):
        return "+Inf"
    return str(int(value)) if float(value).is_integer() and abs(value) < 1 << 53 else repr(float(value))
