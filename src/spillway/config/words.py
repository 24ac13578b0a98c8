"""Types and values in words for people."""

import json

from msgspec import inspect

MAX_SHOWN = 60


def wanted(kind: inspect.Type, *, never_negative: bool = False) -> str:
    """What a value of this type looks like: "an integer ≥ 0", "one of debug, info"."""
    match kind:
        case inspect.Metadata():
            return str((kind.extra or {}).get("words") or wanted(kind.type, never_negative=never_negative))
        case inspect.UnionType():
            members = [one for one in kind.types if not isinstance(one, inspect.NoneType)]
            return " or ".join(wanted(one, never_negative=never_negative) for one in members)
        case inspect.IntType():
            return f"an integer{_bounds(kind, never_negative=never_negative)}"
        case inspect.FloatType():
            return f"a number{_bounds(kind, never_negative=never_negative)}"
        case inspect.StrType():
            return f"text{_lengths(kind)}"
        case inspect.BoolType():
            return "true or false"
        case inspect.EnumType():
            return _one_of([str(member.value) for member in kind.cls])
        case inspect.LiteralType():
            return _one_of([str(value) for value in kind.values])
        case inspect.VarTupleType():
            return "a list"
        case inspect.StructType():
            return "a mapping with keys such as " + ", ".join(field.encode_name for field in kind.fields[:3])
        case _:
            return "a mapping"


def found(value: object, *, secret: bool) -> str:
    """A value as it is shown; of one that may be a secret, only its kind."""
    match value:
        case dict():
            return "a mapping"
        case list():
            return "a list"
        case None:
            return "nothing"
        case _ if secret:
            return "another value (not shown)"
        case bool():
            return "true" if value else "false"
        case str():
            shown = json.dumps(value, ensure_ascii=False)
            return shown if len(shown) <= MAX_SHOWN else f"{shown[:MAX_SHOWN]}…"
        case _:
            return str(value)


def _one_of(names: list[str]) -> str:
    return f"'{names[0]}'" if len(names) == 1 else f"one of {', '.join(names)}"


def _bounds(kind: inspect.IntType | inspect.FloatType, *, never_negative: bool) -> str:
    least = 0 if never_negative and kind.gt is None and kind.ge is None else kind.ge
    bounds = [("≥", least), (">", kind.gt), ("≤", kind.le), ("<", kind.lt)]
    return " and".join(f" {sign} {bound:g}" for sign, bound in bounds if bound is not None)


def _lengths(kind: inspect.StrType) -> str:
    if kind.min_length is not None and kind.max_length is not None:
        return f" of {kind.min_length} to {kind.max_length} characters"
    return "" if kind.max_length is None else f" of at most {kind.max_length} characters"
