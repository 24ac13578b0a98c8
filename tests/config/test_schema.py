"""The schema takes the examples, and the documentation names every key with its default."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from spillway.config import load, schema

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = sorted((ROOT / "examples").glob("*.yaml"))
SCHEMA = schema()


def resolved(part: dict[str, Any]) -> dict[str, Any]:
    while "$ref" in part:
        part = SCHEMA["$defs"][part["$ref"].rpartition("/")[2]]
    return part


def refers_to(part: dict[str, Any], *names: str) -> bool:
    refs = (str(one.get("$ref", "")).rpartition("/")[2] for one in (part, *part.get("anyOf", ())))
    return any(ref in names for ref in refs)


def keys_of(part: dict[str, Any], path: str = "") -> Iterator[tuple[str, str]]:
    """Each key without keys below it, and its default as JSON ("*required*" for none). What a quota holds is told once, for plans."""
    part = resolved(part)
    for branch in part.get("anyOf", ()):
        yield from keys_of(branch, path)
    for name, field in part.get("properties", {}).items():
        below = f"{path}.{name}" if path else name
        deeper = [] if refers_to(field, "Quota", "Bounds") else list(keys_of(field, below))
        default = "*required*" if name in part.get("required", ()) else f"`{json.dumps(field.get('default'))}`"
        yield from deeper or [(below, default)]
    if isinstance(entries := part.get("additionalProperties"), dict) and not refers_to(entries, "Bounds"):
        yield from keys_of(entries, f"{path}.NAME")
    if isinstance(items := part.get("items"), dict) and "$ref" in items:
        yield from keys_of(items, f"{path}[]")


def complaints(value: object, part: dict[str, Any], path: str = "") -> Iterator[str]:
    """What a validator of JSON schemas would say, for the words that ours uses."""
    part = resolved(part)
    if "anyOf" in part:
        if all(list(complaints(value, branch, path)) for branch in part["anyOf"]):
            yield f"{path}: fits no branch"
        return
    types = {
        "object": dict,
        "array": list,
        "string": str,
        "integer": int,
        "number": (int, float),
        "boolean": bool,
        "null": type(None),
    }
    wanted = types.get(part.get("type", ""))
    if wanted is not None and (not isinstance(value, wanted) or (isinstance(value, bool) and wanted is not bool)):
        yield f"{path}: not of type {part['type']}"
        return
    if "enum" in part and value not in part["enum"]:
        yield f"{path}: not one of {part['enum']}"
    if isinstance(value, str) and not re.search(part.get("pattern", ""), value):
        yield f"{path}: does not match"
    if isinstance(value, int | float) and not isinstance(value, bool):
        least, most = part.get("minimum", value), part.get("maximum", value)
        if not least <= value <= most or value <= part.get("exclusiveMinimum", value - 1):
            yield f"{path}: out of bounds"
    if isinstance(value, list):
        for index, item in enumerate(value):
            yield from complaints(item, part.get("items", {}), f"{path}[{index}]")
    if isinstance(value, dict):
        yield from _of_object(value, part, path)


def _of_object(value: dict[str, Any], part: dict[str, Any], path: str) -> Iterator[str]:
    properties, others = part.get("properties", {}), part.get("additionalProperties", True)
    yield from (f"{path}.{name}: missing" for name in part.get("required", ()) if name not in value)
    for name, item in value.items():
        if name not in properties and others is False:
            yield f"{path}.{name}: unknown"
        else:
            yield from complaints(
                item, properties.get(name, others if isinstance(others, dict) else {}), f"{path}.{name}"
            )


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.name)
def test_examples_are_right(example: Path) -> None:
    text = example.read_text()
    environ = {name: f"a-value-for-{name}" for name in re.findall(r"\$\{(\w+)\}", text)}
    fleet = load(example, environ).fleet()
    assert fleet.pools
    assert fleet.models
    assert list(complaints(yaml.safe_load(text), SCHEMA)) == []


def test_the_schema_refuses_what_the_loader_refuses() -> None:
    wrong = {"gateway": {"workers": 0}, "pools": {"a": {"model": 1, "limit": "x"}}, "models": {"m": {}}, "zzz": 1}
    assert [one.partition(":")[0] for one in complaints(wrong, SCHEMA)] == [
        ".gateway.workers", ".pools.a.model", ".pools.a.limit", ".models.m.tiers", ".zzz",
    ]  # fmt: skip


def test_there_are_examples() -> None:
    assert {path.name for path in EXAMPLES} >= {"two-clusters.yaml", "clusters-and-hosted.yaml"}


def test_every_key_is_documented_with_its_default() -> None:
    text = (ROOT / "docs" / "configuration.md").read_text()
    documented = dict(re.findall(r"^\| `([^`]+)` \| (\S+|`[^`]*`) \|", text, re.MULTILINE))
    assert documented == dict(keys_of(SCHEMA))
