"""What is delivered for operators names only what there is."""

import json
import re
import tomllib
from pathlib import Path

import msgspec
import pytest
import yaml

from spillway.core.outcome import Outcome
from spillway.core.priority import Priority
from spillway.telemetry.catalog import CATALOG, Kind

OPS = Path(__file__).resolve().parents[2] / "ops"
METRIC = re.compile(r"spillway_[a-z_]+")
MATCHER = re.compile(r'(\w+)(?:=|!=|=~|!~)"([^"]*)"')
SELECTED = re.compile(r"(spillway_[a-z_]+)(?:\{([^}]*)\})?")
GROUPED = re.compile(r"by \(([^)]*)\)")


class Target(msgspec.Struct):
    expr: str
    legendFormat: str


class Place(msgspec.Struct):
    x: int
    y: int
    w: int
    h: int


class Panel(msgspec.Struct):
    id: int
    title: str
    gridPos: Place
    targets: list[Target] = []
    description: str = ""


class Dashboard(msgspec.Struct):
    uid: str
    panels: list[Panel]
    templating: dict[str, list[dict[str, object]]]


class Rule(msgspec.Struct, rename={"for_": "for"}, forbid_unknown_fields=True):
    alert: str
    expr: str
    labels: dict[str, str]
    annotations: dict[str, str]
    for_: str = "0s"


class Group(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    rules: list[Rule]


class Rules(msgspec.Struct, forbid_unknown_fields=True):
    groups: list[Group]


@pytest.fixture
def dashboard() -> Dashboard:
    return msgspec.json.decode((OPS / "grafana" / "spillway.json").read_bytes(), type=Dashboard)


@pytest.fixture
def rules() -> list[Rule]:
    found = msgspec.convert(yaml.safe_load((OPS / "prometheus" / "alerts.yaml").read_text()), Rules)
    return [rule for group in found.groups for rule in group.rules]


def rendered_names() -> dict[str, tuple[str, ...]]:
    """Every sample name that the renderer writes, and the labels it has."""
    names: dict[str, tuple[str, ...]] = {}
    for spec in CATALOG.values():
        if spec.kind is Kind.HISTOGRAM:
            names[f"{spec.name}_bucket"] = (*spec.labels, "le")
            names[f"{spec.name}_sum"] = names[f"{spec.name}_count"] = spec.labels
        else:
            names[spec.name] = spec.labels
    return names


def check(expression: str) -> None:
    names = rendered_names()
    used = SELECTED.findall(expression)
    assert used, expression
    labels: set[str] = set()
    for name, matchers in used:
        assert name in names, f"{name} in {expression}"
        labels.update(names[name])
        for label, value in MATCHER.findall(matchers):
            assert label in names[name], f"{label} of {name} in {expression}"
            if label in ("outcome", "priority"):
                known = {member.value for member in (Outcome if label == "outcome" else Priority)}
                assert set(value.split("|")) <= known, f"{value} in {expression}"
    for group in GROUPED.findall(expression):
        assert {label.strip() for label in group.split(",")} <= labels, expression


def test_the_dashboard_asks_only_for_what_is_rendered(dashboard: Dashboard) -> None:
    targets = [target for panel in dashboard.panels for target in panel.targets]
    assert len(targets) > 20
    for target in targets:
        check(target.expr)
        for label in re.findall(r"\{\{(\w+)\}\}", target.legendFormat):
            assert label in target.expr or any(label in rendered_names()[name] for name in METRIC.findall(target.expr))
    for variable in dashboard.templating["list"]:
        for name in METRIC.findall(str(variable["query"])):
            assert name in rendered_names()


def test_the_dashboard_shows_every_metric(dashboard: Dashboard) -> None:
    shown = {name for panel in dashboard.panels for target in panel.targets for name in METRIC.findall(target.expr)}
    for spec in CATALOG.values():
        assert spec.name in shown or f"{spec.name}_bucket" in shown, spec.name


def test_panels_have_places_of_their_own(dashboard: Dashboard) -> None:
    assert len({panel.id for panel in dashboard.panels}) == len(dashboard.panels)
    taken: set[tuple[int, int]] = set()
    for panel in dashboard.panels:
        place = panel.gridPos
        cells = {(x, y) for x in range(place.x, place.x + place.w) for y in range(place.y, place.y + place.h)}
        assert place.x + place.w <= 24
        assert not cells & taken, panel.title
        taken |= cells


def test_alerts_ask_only_for_what_is_rendered_and_say_what_to_think(rules: list[Rule]) -> None:
    assert len({rule.alert for rule in rules}) == len(rules) > 10
    for rule in rules:
        check(rule.expr)
        assert rule.labels["severity"] in ("page", "ticket")
        assert rule.annotations["summary"]
        for label in re.findall(r"\$labels\.(\w+)", json.dumps(rule.annotations)):
            assert any(label in rendered_names()[name] for name in METRIC.findall(rule.expr)), rule.alert


def test_the_service_and_the_container_start_what_there_is() -> None:
    unit = (OPS / "systemd" / "spillway.service").read_text()
    container = (OPS / "Dockerfile").read_text()
    assert "spillway serve --config" in unit
    assert "NoNewPrivileges=yes" in unit
    assert 'CMD ["serve", "--config"' in container
    assert "\nUSER 10001\n" in container
    assert set(re.findall(r"^FROM (\S+)", container, re.MULTILINE)) == {"python:3.11-slim"}
    for copied in re.findall(r"^COPY (?!--from)(.+) \S+$", container, re.MULTILINE):
        for name in copied.split():
            assert (OPS.parent / name).exists(), name


def test_the_container_is_built_from_all_that_the_wheel_is_made_of() -> None:
    root = OPS.parent
    project = tomllib.loads((root / "pyproject.toml").read_text())
    wheel = project["tool"]["hatch"]["build"]["targets"]["wheel"]
    wanted = {*wheel["packages"], *wheel["force-include"], "pyproject.toml", project["project"]["readme"]}
    copied = [
        Path(source)
        for line in re.findall(r"^COPY (?!--)(.+)$", (OPS / "Dockerfile").read_text(), re.MULTILINE)
        for source in line.split()[:-1]
    ]
    assert copied
    assert all((root / source).exists() for source in copied)
    missing = [path for path in wanted if not any(Path(path).is_relative_to(source) for source in copied)]
    assert not missing
