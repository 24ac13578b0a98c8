"""`spillway config check FILE` and `spillway config schema`."""

import argparse
import json
import os
import sys
from pathlib import Path

import msgspec

from spillway import config
from spillway.config import Configuration, InvalidConfigurationError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="check|schema", required=True)
    check = actions.add_parser("check", help="say everything that is wrong with a configuration file")
    check.add_argument("file", type=Path, metavar="FILE")
    check.add_argument("--json", action="store_true", help="print {ok, problems, summary} instead of text")
    schema = actions.add_parser("schema", help="print the JSON schema of configuration files")
    schema.add_argument("--json", action="store_true", help="accepted for symmetry: the schema is JSON anyway")


def run(arguments: argparse.Namespace) -> int:
    if arguments.action == "schema":
        print(json.dumps(config.schema(), indent=2))
        return 0
    try:
        configuration = config.load(arguments.file, os.environ)
    except InvalidConfigurationError as error:
        if arguments.json:
            problems = [msgspec.structs.asdict(problem) for problem in error.problems]
            print(json.dumps({"ok": False, "problems": problems, "summary": None}, indent=2))
        else:
            print(error, file=sys.stderr)
        return 2
    summary = _summary(configuration)
    if arguments.json:
        print(json.dumps({"ok": True, "problems": [], "summary": msgspec.to_builtins(summary)}, indent=2))
    else:
        print(f"{arguments.file}: fine")
        _print(summary)
    return 0


class _Pool(msgspec.Struct, frozen=True):
    cluster: str | None
    endpoints: tuple[str, ...]
    limit: int


class _Summary(msgspec.Struct, frozen=True):
    listen: str
    admin: str
    workers: int
    keys: int
    clusters: list[str]
    pools: dict[str, _Pool]
    models: dict[str, tuple[tuple[str, ...], ...]]


def _summary(configuration: Configuration) -> _Summary:
    gateway, fleet = configuration.gateway, configuration.fleet()
    return _Summary(
        listen=gateway.listen,
        admin=gateway.admin,
        workers=gateway.workers,
        keys=len(configuration.keys),
        clusters=sorted(configuration.clusters),
        pools={name: _Pool(pool.cluster, pool.endpoints, pool.limit) for name, pool in fleet.pools.items()},
        models={name: model.tiers for name, model in fleet.models.items()},
    )


def _print(summary: _Summary) -> None:
    print(f"  gateway {summary.listen}, admin {summary.admin}, workers {summary.workers}, keys {summary.keys}")
    for name, pool in summary.pools.items():
        print(f"  pool {name}: {pool.cluster or 'hosted'}, limit {pool.limit}, {', '.join(pool.endpoints)}")
    for name, tiers in summary.models.items():
        print(f"  model {name}: {' → '.join(' + '.join(tier) for tier in tiers)}")
