"""Coverage-guided fuzzing of the parsers of `wire`: `python tests/fuzz/fuzz_wire.py [-max_total_time=SECONDS] [CORPUS…]`.

Not collected by pytest. A finding is an exception other than the declared ones, or a body on which `envelope` and one of
the reference parsers disagree.
"""

import json
import sys
from typing import Any

import atheris

with atheris.instrument_imports(include=["spillway.wire"]):  # pyright: ignore[reportAttributeAccessIssue]
    from spillway.core.errors import BadRequestError
    from spillway.wire import engine_metrics, envelope, openai, sse, usage_tail
    from spillway.wire.envelope import Kind

SEED = (
    b'{"model":"m","messages":[{"role":"user","content":"x"}],"stream":true,"stream_options":{"include_usage":false}}'
)


def one_input(noise: bytes) -> None:
    for body in (noise, SEED[:-1] + noise, SEED.replace(b'"m"', noise)):
        fuzz_envelope(body)
    fuzz_stream(noise)
    openai.read_error(noise)
    engine_metrics.read(b"vllm:num_requests_running" + noise)


def fuzz_envelope(body: bytes) -> None:
    try:
        read = envelope.read(body, Kind.CHAT)
    except BadRequestError:
        return
    rewritten = envelope.rewrite(body, read, model="up", ask_for_usage=True)
    for first_wins in (False, True):
        tree = parsed(body, first_wins=first_wins)
        assert tree["model"] == read.model, body
        assert (tree.get("stream") is True) == read.stream, body
        changed = parsed(rewritten, first_wins=first_wins)
        assert changed.pop("model") == "up", body
        assert changed.pop("stream_options")["include_usage"] is True, body
        unchanged = {name: value for name, value in tree.items() if name not in ("model", "stream_options")}
        assert repr(changed) == repr(unchanged), body


def parsed(body: bytes, *, first_wins: bool) -> dict[str, Any]:
    def chosen(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        kept = dict(reversed(pairs)) if first_wins else dict(pairs)
        return {name: kept[name] for name in sorted(kept)}

    return json.loads(body.decode("utf-8", "surrogateescape"), object_pairs_hook=chosen)


def relayed(*pieces: bytes) -> list[bytes]:
    """The data of a stream that comes in pieces, whole events at a time, as the relay takes it."""
    found: list[bytes] = []
    carried = b""
    for piece in pieces:
        carried += piece
        end = sse.end_of_last_event(carried)
        found += sse.events(carried[:end])
        carried = carried[end:]
    return [*found, *sse.events(carried)]


def fuzz_stream(noise: bytes) -> None:
    cut = len(noise) // 2
    found = relayed(noise)
    assert found == relayed(noise[:cut], noise[cut:]), noise
    assert b"".join(sse.raw_events(noise)) == noise
    for event in [noise, *found]:
        assert not (sse.has_content(event) and sse.is_usage_only(event)), noise
        usage_tail.from_body(event)
    usage_tail.from_tail([b'data: {"usage":', noise])


if __name__ == "__main__":
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()
