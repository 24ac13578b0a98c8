"""SQL lives in files. A file holds statements, each under a line `-- name: NAME`, with parameters as `:name`, the same for every
database (but for what stands in `/*postgres … */`, which is a comment to all others); migrations hold a numbered step each, and
are each database's own."""

import re
import sqlite3
from importlib import resources

import msgspec

from spillway.core.errors import StoreError

_NAME = re.compile(r"^-- name: (\w+)$", re.MULTILINE)


class Migration(msgspec.Struct, frozen=True):
    number: int
    name: str
    statements: tuple[str, ...]


def statements(topic: str) -> dict[str, str]:
    """The statements of `sql/TOPIC.sql` by name."""
    parts = _NAME.split(_read(f"{topic}.sql"))
    return {name: text.strip() for name, text in zip(parts[1::2], parts[2::2], strict=True)}


def migrations(database: str) -> list[Migration]:
    """`sql/migrations/DATABASE/NNNN_NAME.sql` in order; their numbers are 1, 2, 3 …"""
    folder = resources.files("spillway.store").joinpath("sql", "migrations", database)
    names = sorted(entry.name for entry in folder.iterdir() if entry.name.endswith(".sql"))
    found = [
        Migration(int(name[:4]), name[5:-4], _parts(database, folder.joinpath(name).read_text(encoding="utf-8")))
        for name in names
    ]
    if [migration.number for migration in found] != list(range(1, len(found) + 1)):
        raise StoreError("the migrations are not numbered 1, 2, 3 …")
    return found


def _read(name: str) -> str:
    return resources.files("spillway.store").joinpath("sql", name).read_text(encoding="utf-8")


def _parts(database: str, script: str) -> tuple[str, ...]:
    """PostgreSQL takes a script as it is."""
    return _split(script) if database == "sqlite" else (script,)


def _split(script: str) -> tuple[str, ...]:
    """Statement by statement: `executescript` would end the transaction that a migration runs in."""
    found: list[str] = []
    pending = ""
    for line in script.splitlines(keepends=True):
        pending += line
        if sqlite3.complete_statement(pending):
            found.append(pending.strip())
            pending = ""
    return tuple(found)
