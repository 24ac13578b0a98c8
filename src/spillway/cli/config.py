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
        print(json.dumps({"ok": True, "problems": [], "summary": summary}, indent=2))
    else:
        _print_summary(arguments.file, summary)
    return 0


def _summary(configuration: Configuration) -> dict[str, object]:
    fleet = configuration.fleet()
    return {
        "listen": configuration.gateway.listen,
        "admin": configuration.gateway.admin,
        "workers": configuration.gateway.workers,
        "clusters": sorted(configuration.clusters),
        "pools": {
            name: {"cluster": pool.cluster, "endpoints": list(pool.endpoints), "limit": pool.limit}
            for name, pool in fleet.pools.items()
        },
        "models": {name: [list(tier) for tier in model.tiers] for name, model in fleet.models.items()},
        "keys": len(configuration.keys),
    }


def _print_summary(file: Path, summary: dict[str, object]) -> None:
    pools, models = summary["pools"], summary["models"]
    assert isinstance(pools, dict)
    assert isinstance(models, dict)
    print(f"{file}: fine")
    print(
        f"  gateway {summary['listen']}, admin {summary['admin']}, {summary['workers']} worker(s), {summary['keys']} key(s)"
    )
    for name, pool in pools.items():
        where = pool["cluster"] or "hosted"
        print(f"  pool {name}: {where}, limit {pool['limit']}, {', '.join(pool['endpoints'])}")
    for name, tiers in models.items():
        print(f"  model {name}: {' → '.join(' + '.join(tier) for tier in tiers)}")
