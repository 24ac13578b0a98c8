"""What a run must reach for exit status 0: `--require 'goodput_rps>=10'`, `--require 'ttft_ms.p99<1000'`."""

import operator
import re
from collections.abc import Callable

import msgspec

from spillway.core.errors import UsageError

_FORM = re.compile(r"\s*([a-z0-9_.]+)\s*(<=|>=|==|<|>)\s*(-?\d+(?:\.\d+)?)\s*")
_COMPARE: dict[str, Callable[[float, float], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "==": operator.eq,
}


class Requirement(msgspec.Struct, frozen=True):
    """`figure` is a key of the result; dots go into its parts."""

    figure: str
    sign: str
    bound: float

    @property
    def text(self) -> str:
        return f"{self.figure}{self.sign}{self.bound:g}"


class Verdict(msgspec.Struct, frozen=True):
    """`measured` None: nothing was measured, which never meets a requirement."""

    require: str
    measured: float | None
    met: bool


def parse_requirement(text: str) -> Requirement:
    """Raises UsageError."""
    match = _FORM.fullmatch(text)
    if match is None:
        raise UsageError(f"--require {text!r} is not of the form name>=number")
    return Requirement(match[1], match[2], float(match[3]))


def judge(requirement: Requirement, result: object) -> Verdict:
    """`result`: the result as plain dictionaries and numbers. Raises UsageError for a figure that no result has."""
    found = result
    for part in requirement.figure.split("."):
        if not isinstance(found, dict):
            raise UsageError(f"--require: {requirement.figure} is not a figure of the result")
        if part not in found and requirement.figure.split(".")[0] not in ("errors", "pools", "statuses", "clients"):
            raise UsageError(f"--require: {requirement.figure} is not a figure of the result")
        found = found.get(part, 0)
    if found is None:
        return Verdict(requirement.text, None, met=False)
    if not isinstance(found, int | float):
        raise UsageError(f"--require: {requirement.figure} is not a number")
    return Verdict(requirement.text, float(found), _COMPARE[requirement.sign](found, requirement.bound))
