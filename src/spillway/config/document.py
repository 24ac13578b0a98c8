"""From YAML text to a tree that knows where each of its values stands.

Plain scalars are read as YAML 1.2 reads them: `on` and `12:30` are text. Aliases, tags and several documents are refused, so
that the tree is never larger than the text.
"""

import re
from collections.abc import Mapping

import msgspec
import yaml

from spillway.config.environment import substitute
from spillway.config.problems import InvalidConfigurationError, Path, Problem, dotted

MAX_BYTES = 1 << 20
MAX_DEPTH = 32

Scalar = str | int | float | bool | None
Place = tuple[int, int]
"""Line and column, from 1."""


class Node(msgspec.Struct):
    """`key_places`: where the keys of a mapping stand. `from_environment`: the value must not be shown."""

    value: "Scalar | dict[str, Node] | list[Node]"
    place: Place
    key_places: dict[str, Place] = {}
    from_environment: bool = False


_INT = re.compile(r"[-+]?[0-9]{1,18}\Z")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]{1,3})?\Z")
_WORDS: dict[str, Scalar] = {
    "": None, "~": None, "null": None, "Null": None, "NULL": None,
    "true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False,
}  # fmt: skip
_PLAIN_TAGS = (None, "tag:yaml.org,2002:str", "tag:yaml.org,2002:seq", "tag:yaml.org,2002:map")


class Document:
    """A file that was read, and the problems that were found in it so far."""

    def __init__(self, file: str, text: str, environ: Mapping[str, str]) -> None:
        """Raises InvalidConfigurationError where the text is not YAML at all, or holds what is not taken."""
        self.file = file
        self.problems: list[Problem] = []
        self._wrong: set[str] = set()
        self._environ = environ
        root = self._composed(text)
        self.root = Node(None, (1, 1)) if root is None else self._node(root, ())

    def report(self, path: Path, message: str, *, at_key: bool = False) -> None:
        """A problem with the value at `path`, or with its key; where there is no such value, with what would hold it."""
        self._note(self._place(path, at_key=at_key), path, message)
        if not at_key:
            self._wrong.add(dotted(path))

    def is_wrong(self, path: Path) -> bool:
        """Whether a value at `path` or below was reported."""
        at = dotted(path)
        return any(one == at or one.startswith((f"{at}.", f"{at}[")) for one in self._wrong)

    def find(self, path: Path) -> Node | None:
        node = self.root
        for step in path:
            match node.value:
                case dict() as fields if isinstance(step, str) and step in fields:
                    node = fields[step]
                case list() as items if isinstance(step, int) and step < len(items):
                    node = items[step]
                case _:
                    return None
        return node

    def _place(self, path: Path, *, at_key: bool) -> Place:
        for length in range(len(path), 0, -1):
            node, parent = self.find(path[:length]), self.find(path[: length - 1])
            at_key = at_key or length < len(path)
            key_place = None if parent is None else parent.key_places.get(str(path[length - 1]))
            if key_place is not None and (at_key or node is None):
                return key_place
            if node is not None:
                return node.place
        return self.root.place

    def _note(self, place: Place, path: Path, message: str) -> None:
        self.problems.append(Problem(self.file, *place, dotted(path), message))

    def _error(self, mark: yaml.Mark | None, message: str) -> InvalidConfigurationError:
        line, column = (0, 0) if mark is None else _place_of(mark)
        return InvalidConfigurationError([Problem(self.file, line, column, "", message)])

    def _composed(self, text: str) -> yaml.Node | None:
        if len(text) > MAX_BYTES:
            raise self._error(None, f"the file is larger than {MAX_BYTES} bytes")
        try:
            self._refuse_oddities(text)
            return yaml.compose(text, Loader=yaml.CBaseLoader)
        except yaml.MarkedYAMLError as error:
            raise self._error(
                error.problem_mark or error.context_mark, f"not YAML: {error.problem or error.context}"
            ) from None
        except yaml.YAMLError as error:
            raise self._error(None, f"not YAML: {str(error).splitlines()[0]}") from None

    def _refuse_oddities(self, text: str) -> None:
        depth = documents = 0
        for event in yaml.parse(text, Loader=yaml.CBaseLoader):
            message = ""
            match event:
                case yaml.AliasEvent():
                    message = "aliases are not taken: write it out"
                case yaml.DocumentStartEvent():
                    documents += 1
                    message = "one document only" if documents > 1 else ""
                case yaml.MappingStartEvent() | yaml.SequenceStartEvent():
                    depth += 1
                    message = f"nested deeper than {MAX_DEPTH}" if depth > MAX_DEPTH else ""
                case yaml.MappingEndEvent() | yaml.SequenceEndEvent():
                    depth -= 1
                case _:
                    pass
            if getattr(event, "tag", None) not in _PLAIN_TAGS:
                message = "tags are not taken"
            if message:
                raise self._error(event.start_mark, message)

    def _node(self, source: yaml.Node, path: Path) -> Node:
        place = _place_of(source.start_mark)
        if isinstance(source, yaml.MappingNode):
            return self._mapping(source, path)
        if isinstance(source, yaml.SequenceNode):
            return Node([self._node(item, (*path, index)) for index, item in enumerate(source.value)], place)
        found = substitute(str(source.value), self._environ)
        for complaint in found.complaints:
            self._note(place, path, complaint)
            self._wrong.add(dotted(path))
        is_plain = not getattr(source, "style", None)
        return Node(resolved(found.text) if is_plain else found.text, place, from_environment=found.from_environment)

    def _mapping(self, source: yaml.MappingNode, path: Path) -> Node:
        fields: dict[str, Node] = {}
        places: dict[str, Place] = {}
        for key, value in source.value:
            place, name = _place_of(key.start_mark), str(key.value)
            if not isinstance(key, yaml.ScalarNode):
                self._note(place, path, "a key must be text")
            elif name in fields:
                self._note(place, (*path, name), f"is there twice, first in line {places[name][0]}")
            else:
                places[name] = place
                fields[name] = self._node(value, (*path, name))
        return Node(fields, _place_of(source.start_mark), places)


def resolved(text: str) -> Scalar:
    """What a plain scalar means."""
    if text in _WORDS:
        return _WORDS[text]
    if _INT.match(text):
        return int(text)
    return float(text) if _FLOAT.match(text) else text


def _place_of(mark: yaml.Mark) -> Place:
    return mark.line + 1, mark.column + 1
