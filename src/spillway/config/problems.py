"""What is wrong with a configuration file: all of it at once, each with its place."""

from collections.abc import Sequence

import msgspec

from spillway.core.errors import ConfigError

Path = tuple[str | int, ...]


class Problem(msgspec.Struct, frozen=True):
    """`line` and `column` count from 1; 0 where the place is not known. `path` is empty where the whole file is meant."""

    file: str
    line: int
    column: int
    path: str
    message: str

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}:{self.column}" if self.line else self.file
        return f"{place}: {self.path}: {self.message}" if self.path else f"{place}: {self.message}"


class InvalidConfigurationError(ConfigError):
    """Its text is one line per problem, in the order of the file."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(sorted(problems, key=lambda problem: (problem.line, problem.column)))
        super().__init__("\n".join(map(str, self.problems)))


def dotted(path: Path) -> str:
    """`pools.npc@east.endpoints[0]`"""
    text = ""
    for step in path:
        text += f"[{step}]" if isinstance(step, int) else f".{step}" if text else step
    return text
