"""Holds a document against the types of the configuration and reports every mistake, not only the first.

What is wrong is left out of the result, together with what cannot be without it, so that the rest can be checked further.
"""

import difflib
import math
from typing import Annotated, Final

import msgspec
from msgspec import inspect

from spillway.config.document import Document, Node
from spillway.config.problems import Path
from spillway.config.settings import SECRET_FIELDS
from spillway.config.words import found, wanted

Plain = str | int | float | bool | None | dict[str, "Plain"] | list["Plain"]


class _Wrong:
    """What takes the place of a value that was reported."""


WRONG: Final = _Wrong()
_UNITS = ("_s", "_ms", "_bytes", "_tokens", "_per_mtok")


def plain_tree(document: Document, shape: type[msgspec.Struct]) -> dict[str, Plain]:
    """The right part of the document as plain values that `msgspec.convert` takes for `shape`, whose fields have defaults."""
    tree = _Checker(document).value(document.root, inspect.type_info(shape), ())
    return tree if isinstance(tree, dict) else {}


class _Checker:
    def __init__(self, document: Document) -> None:
        self._document = document

    def value(self, node: Node, kind: inspect.Type, path: Path) -> "Plain | _Wrong":
        kind, words = _unwrapped(kind)
        if isinstance(kind, inspect.UnionType):
            kind, words = _branch(node, kind)
        match kind, node.value:
            case inspect.StructType(), dict() as fields:
                return self._struct(fields, kind, path)
            case inspect.StructType(), None:  # `gateway:` with nothing below it
                return self._struct({}, kind, path)
            case inspect.DictType(), dict() as fields:
                return self._dict(fields, kind, path)
            case inspect.DictType(), None:
                return {}
            case inspect.VarTupleType(), list() as items:
                return self._tuple(items, kind, path)
            case _, (None | bool() | int() | float() | str()) as scalar if fits(scalar, kind, path):
                return scalar
            case _ if self._document.is_wrong(path):  # a variable that is not set
                return WRONG
            case _:
                secret = node.from_environment or any(step in SECRET_FIELDS for step in path)
                expected = words or wanted(kind, never_negative=_is_never_negative(path))
                self._document.report(path, f"expected {expected}, found {found(node.value, secret=secret)}")
                return WRONG

    def _struct(self, fields: dict[str, Node], kind: inspect.StructType, path: Path) -> "Plain | _Wrong":
        known = {field.encode_name: field for field in kind.fields}
        for name in fields.keys() - known.keys():
            self._document.report((*path, name), _unknown(name, list(known)), at_key=True)
        tree: dict[str, Plain] = {}
        complete = True
        for name, field in known.items():
            node = fields.get(name)
            if node is None:
                checked = WRONG
                if field.required:
                    self._document.report((*path, name), "is missing")
            else:
                checked = self.value(node, field.type, (*path, name))
            if not isinstance(checked, _Wrong):
                tree[name] = checked
            elif field.required:
                complete = False
        return tree if complete else WRONG

    def _dict(self, fields: dict[str, Node], kind: inspect.DictType, path: Path) -> Plain:
        key_kind, words = _unwrapped(kind.key_type)
        tree: dict[str, Plain] = {}
        for name, node in fields.items():
            below = (*path, name)
            if not fits(name, key_kind, below):
                self._document.report(below, f"the key must be {words or wanted(key_kind)}", at_key=True)
                continue
            checked = self.value(node, kind.value_type, below)
            if not isinstance(checked, _Wrong):
                tree[name] = checked
        return tree

    def _tuple(self, items: list[Node], kind: inspect.VarTupleType, path: Path) -> Plain:
        checked = [self.value(item, kind.item_type, (*path, index)) for index, item in enumerate(items)]
        return [item for item in checked if not isinstance(item, _Wrong)]


def fits(value: object, kind: inspect.Type, path: Path) -> bool:
    """Whether a scalar is of a scalar kind. Names say more than types: seconds, bytes and prices are never negative."""
    match kind:
        case inspect.UnionType():
            return any(fits(value, _unwrapped(one)[0], path) for one in kind.types)
        case inspect.NoneType():
            return value is None
        case inspect.BoolType():
            return isinstance(value, bool)
        case inspect.EnumType():
            return value in [member.value for member in kind.cls]
        case inspect.LiteralType():
            return value in kind.values and not isinstance(value, bool)
        case inspect.StrType():
            return isinstance(value, str) and _converts(value, kind)
        case inspect.IntType() | inspect.FloatType():
            if isinstance(value, bool) or not isinstance(
                value, int if isinstance(kind, inspect.IntType) else int | float
            ):
                return False
            return _within(value, kind) and not (_is_never_negative(path) and value < 0)
        case _:
            return False


def _within(value: float, kind: inspect.IntType | inspect.FloatType) -> bool:
    return (
        math.isfinite(value)
        and (kind.ge is None or value >= kind.ge)
        and (kind.gt is None or value > kind.gt)
        and (kind.le is None or value <= kind.le)
        and (kind.lt is None or value < kind.lt)
    )


def _converts(value: str, kind: inspect.StrType) -> bool:
    meta = msgspec.Meta(pattern=kind.pattern, min_length=kind.min_length, max_length=kind.max_length)
    try:
        msgspec.convert(value, Annotated[str, meta])
    except msgspec.ValidationError:
        return False
    return True


def _is_never_negative(path: Path) -> bool:
    return bool(path) and str(path[-1]).endswith(_UNITS)


def _unwrapped(kind: inspect.Type) -> tuple[inspect.Type, str]:
    """The type without its annotations, and the words for it where it has some."""
    words = ""
    while isinstance(kind, inspect.Metadata):
        words = str((kind.extra or {}).get("words", words))
        kind = kind.type
    return kind, words


def _branch(node: Node, union: inspect.UnionType) -> tuple[inspect.Type, str]:
    """The member of a union that a mapping or a list is meant for; the union itself for scalars."""
    wanted_kinds: tuple[type, ...]
    match node.value:
        case dict():
            wanted_kinds = (inspect.StructType, inspect.DictType)
        case list():
            wanted_kinds = (inspect.VarTupleType,)
        case _:
            return union, ""
    members = [_unwrapped(member) for member in union.types]
    return next((member for member in members if isinstance(member[0], wanted_kinds)), (union, ""))


def _unknown(name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    return f"unknown key; did you mean '{near[0]}'?" if near else f"unknown key; known are {', '.join(known)}"
