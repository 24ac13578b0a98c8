"""For any body: what is decided on is what every JSON parser reads, and rewriting changes nothing else."""

import json
import re
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from spillway.core.errors import BadRequestError
from spillway.wire import envelope
from spillway.wire.envelope import Envelope, Kind

BLANK: Any = re.compile(r"[ \t\r\n]*")
Pairs = list[tuple[str, Any]]

spaces = st.sampled_from(["", "", "", " ", "\n", "\t ", "\r\n"])
names = st.sampled_from(
    ["model", "stream", "stream_options", "max_tokens", "messages", "prompt", "tools", "n", "user", "Model", "x", "", 'a"b', "é", "model\\"]
)  # fmt: skip
texts = st.one_of(
    st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=12),
    st.sampled_from(['"model":"evil"', '{"messages":[', "\\", '","model":"', "\u2028", "😀", "model"]),
)
scalars = st.one_of(
    st.none(), st.booleans(), st.integers(-5, 10**6), st.floats(allow_nan=False, allow_infinity=False), texts
)
values: st.SearchStrategy[Any] = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.one_of(names, texts), inner, max_size=3)
    ),
    max_leaves=6,
)  # fmt: skip


def repeated(value: object, times: int) -> list[object]:
    return [value] * times


big = st.builds(repeated, values, st.sampled_from([1, 1, 400]))
fields = st.one_of(
    st.tuples(st.just("model"), st.one_of(st.sampled_from(["npc", "é", 'q"', "m\\"]), values)),
    st.tuples(st.just("messages"), big),
    st.tuples(st.just("stream"), st.booleans()),
    st.tuples(st.just("stream_options"), st.one_of(st.none(), st.dictionaries(st.sampled_from(["a", "include_usage"]), st.booleans()))),
    st.tuples(st.just("max_tokens"), st.integers(0, 9)),
    st.tuples(names, values),
    st.tuples(texts, values),
)  # fmt: skip
bodies = st.lists(fields, max_size=7)


def write(draw: st.DataObject, pairs: Pairs, *, escapes: bool = False, spaced: bool = True) -> str:
    """The pairs as an object, with arbitrary white space and with a key that is written with an escape now and then."""

    def gap() -> str:
        return draw.draw(spaces) if spaced else ""

    parts: list[str] = []
    for name, value in pairs:
        key = json.dumps(name, ensure_ascii=False)
        if escapes and name.isalpha() and ord(name[0]) < 0x10000 and draw.draw(st.integers(0, 30)) == 0:
            key = f'"\\u{ord(name[0]):04x}' + key[2:]
        written = json.dumps(value, ensure_ascii=draw.draw(st.booleans()))
        parts.append(f"{gap()}{key}{gap()}:{gap()}{written}{gap()}")
    return f"{gap()}{{{','.join(parts) or gap()}}}{gap()}"


def frame(text: str) -> str:
    """The text with ? in place of the values of the two fields that may change. Reads with the standard library only."""
    decoder = json.JSONDecoder()
    out, at = text[: text.index("{") + 1], text.index("{") + 1
    while (begin := BLANK.match(text, at).end()) < len(text) and text[begin] == '"':
        name, name_end = decoder.raw_decode(text, begin)
        start = BLANK.match(text, BLANK.match(text, name_end).end() + 1).end()
        _, end = decoder.raw_decode(text, start)
        out += text[at:start] + ("?" if name in ("model", "stream_options") else text[start:end])
        at = BLANK.match(text, end).end()
        out += text[end:at]
        if text[at] == ",":
            out, at = out + ",", at + 1
    return out + text[at:]


def first_wins(body: bytes) -> dict[str, Any]:
    return json.loads(body, object_pairs_hook=lambda pairs: dict(reversed(pairs)))


def case_blind(body: bytes, *, first: bool) -> dict[str, Any]:
    """As Go reads into a struct: the case of the keys that it knows does not matter."""
    pairs: Pairs = json.loads(body, object_pairs_hook=lambda pairs: pairs)
    found: dict[str, Any] = {}
    for name, value in reversed(pairs) if first else pairs:
        found[name.casefold()] = value
    return found


def read(body: bytes) -> Envelope | None:
    try:
        return envelope.read(body, Kind.CHAT)
    except BadRequestError:
        return None


known_fields = {
    "stream": st.booleans(),
    "stream_options": st.one_of(
        st.none(), st.dictionaries(st.sampled_from(["a", "b", "include_usage"]), st.booleans())
    ),
    "max_tokens": st.integers(0, 9),
    "user": texts,
    "tools": big,
    "model": st.sampled_from(["npc", "é", 'q"', "m\\"]),
    "messages": st.builds(
        repeated, st.fixed_dictionaries({"content": st.one_of(texts, big)}), st.sampled_from([0, 1, 2])
    ),
}
unknown_names = st.one_of(names, texts).filter(
    lambda name: name.isidentifier() and name.casefold() not in envelope.ROUTING
)


def joined(unknown: dict[str, Any], known: dict[str, Any]) -> Pairs:
    return list((unknown | known).items())


sound: st.SearchStrategy[Pairs] = st.builds(
    joined,
    st.dictionaries(unknown_names, values, max_size=4),
    st.fixed_dictionaries(
        {name: known_fields[name] for name in ("model", "messages")},
        optional={name: known_fields[name] for name in ("stream", "stream_options", "max_tokens", "user", "tools")},
    ),
).flatmap(st.permutations)
mixed: st.SearchStrategy[Pairs] = (
    st.tuples(sound, bodies).map(lambda both: both[0] + both[1][:2]).flatmap(st.permutations)
)


@settings(max_examples=700, deadline=None)
@given(st.data(), st.one_of(sound, mixed, bodies), st.booleans())
def test_every_parser_reads_what_was_decided_on(draw: st.DataObject, pairs: Pairs, spaced: bool) -> None:
    body = write(draw, pairs, escapes=True, spaced=spaced).encode()
    seen = read(body)
    if seen is None:
        return
    for tree in (json.loads(body), first_wins(body), case_blind(body, first=True), case_blind(body, first=False)):
        assert tree["model"] == seen.model
        assert (tree.get("stream") is True) == seen.stream
        assert tree.get("max_tokens") == seen.max_tokens
        assert tree.get("user") == seen.user
    options = json.loads(body).get("stream_options")
    assert seen.include_usage == bool(options and options.get("include_usage"))


@settings(max_examples=600, deadline=None)
@given(st.data(), sound, st.sampled_from([None, "up", 'q"\\é']), st.booleans(), st.booleans())
def test_rewriting_changes_the_named_fields_and_no_other_byte(
    draw: st.DataObject, pairs: Pairs, model: str | None, ask: bool, spaced: bool
) -> None:  # fmt: skip
    text = write(draw, pairs, spaced=spaced)
    seen = envelope.read(text.encode(), Kind.CHAT)
    rewritten = envelope.rewrite(text.encode(), seen, model=model, ask_for_usage=ask).decode()
    before, after = json.loads(text), json.loads(rewritten)
    expected = before | ({"model": model} if model else {})
    if ask:
        expected["stream_options"] = (before.get("stream_options") or {}) | {"include_usage": True}
    assert after == expected
    inserted = '"stream_options":?,' if ask and "stream_options" not in before else ""
    assert frame(rewritten) == frame(text).replace("{", "{" + inserted, 1)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=60), st.binary(max_size=60))
def test_any_bytes_are_refused_or_read(start: bytes, end: bytes) -> None:
    for body in (
        start,
        b'{"model":"m","messages":[]' + start + b"}",
        b'{"messages":[' + start + b'],"model":"m"' + end,
    ):
        seen = read(body)
        if seen is not None:
            assert json.loads(body)["model"] == seen.model
