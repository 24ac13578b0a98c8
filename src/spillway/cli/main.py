"""`spillway VERB`: exit status 0 fine, 1 a check failed, 2 usage or configuration."""

import argparse
import importlib
import os
import sys
from typing import Protocol, cast

from spillway import __version__
from spillway.cli.verbs import VERBS
from spillway.core.errors import ConfigError, SpillwayError, UsageError


class VerbModule(Protocol):
    """What each verb's module offers."""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None: ...
    def run(self, arguments: argparse.Namespace) -> int: ...


def main(words: list[str] | None = None) -> int:
    words = sys.argv[1:] if words is None else words
    verb = next((word for word in words if not word.startswith("-")), "")
    try:
        status = _run(words, verb)
        sys.stdout.flush()
        return status
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # who read our output has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except SpillwayError as error:
        return _told(verb, error)
    except ExceptionGroup as group:
        error = _first_of_ours(group)
        if error is None:
            raise
        return _told(verb, error)


def _run(words: list[str], verb: str) -> int:
    parser = argparse.ArgumentParser(
        prog="spillway", description="One gateway over many clusters and hosted providers."
    )
    parser.add_argument("--version", action="version", version=f"spillway {__version__}")
    choices = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    for name, (module_name, summary) in VERBS.items():
        subparser = choices.add_parser(name, help=summary, description=summary)
        if name == verb:
            _load(module_name).add_arguments(subparser)
    arguments = parser.parse_args(words)
    return _load(VERBS[arguments.verb][0]).run(arguments)


def _told(verb: str, error: SpillwayError) -> int:
    print(f"spillway {verb}: {error}", file=sys.stderr)
    return 2 if isinstance(error, (UsageError, ConfigError)) else 1


def _first_of_ours(group: ExceptionGroup[Exception]) -> SpillwayError | None:
    """What a task group ended with, if nothing in it is a surprise."""
    ours, others = group.split(SpillwayError)
    if ours is None or others is not None:
        return None
    first: SpillwayError | ExceptionGroup[SpillwayError] = ours
    while isinstance(first, ExceptionGroup):
        first = first.exceptions[0]
    return first


def _load(module_name: str) -> VerbModule:
    return cast("VerbModule", cast("object", importlib.import_module(module_name)))
