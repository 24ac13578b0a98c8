"""The house stays easy to see: file lengths, words that are not names, and files without addresses or paths."""

import ast
import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MAX_LINES = 400
LONGER_FOR_A_REASON: dict[str, str] = {}
BANNED_WORDS = {"manager", "handler", "helper", "helpers", "util", "utils", "common", "misc", "info"}


def tracked(*patterns: str) -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", *patterns],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    return [ROOT / line for line in listed.splitlines() if (ROOT / line).is_file()]


def test_no_file_is_longer_than_one_idea() -> None:
    long = {
        str(path.relative_to(ROOT)): count
        for path in tracked("src/*.py", "tests/*.py", "benchmarks/*.py", "models/*.py")
        if (count := len(path.read_text().splitlines())) > MAX_LINES
    }
    assert long.keys() <= LONGER_FOR_A_REASON.keys(), long


def test_names_say_what_a_thing_is() -> None:
    wrong = {
        f"{path.relative_to(ROOT)}: {name}"
        for path in tracked("src/*.py")
        for name in (path.stem, *defined_in(path))
        if BANNED_WORDS & {word.lower() for word in re.findall(r"[A-Z]?[a-z]+", name)}
    }
    assert not wrong


def defined_in(path: Path) -> list[str]:
    kinds = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    return [node.name for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, kinds)]


def test_lock_files_name_no_address() -> None:
    for path in tracked("requirements/*", "*.lock", "*package-lock.json"):
        assert not re.search(r"https?://", path.read_text()), path


def test_nothing_tracked_names_a_path_of_one_machine() -> None:
    here = str(ROOT.parent)
    for path in tracked("*.py", "*.md", "*.toml", "*.yaml", "*.json", "*.sh", "dev"):
        text = path.read_text()
        assert here not in text or here in ("/", "/root"), path
