"""The upstream's own endpoints for whoever directs a test: change the script while it runs, read the log."""

from urllib.parse import parse_qs

import msgspec

from spillway.core.errors import ConfigError
from spillway.testing.fake_engine import FakeEngine
from spillway.testing.faults import parse_rules
from spillway.testing.openai_bodies import error_body
from spillway.testing.raw_http import RawExchange
from spillway.testing.script import Failures
from spillway.testing.seen import as_line
from spillway.testing.spec import UpstreamSpec


class Orders(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Body of POST /control, and a script file. What is left out stays as it is.

    `faults`: texts or mappings (see `faults`); their time line starts now. `spec`: fields of `UpstreamSpec`.
    `forget`: drop the log of requests that are over.
    """

    faults: list[str | dict[str, object]] | None = None
    failures: Failures | None = None
    spec: dict[str, object] | None = None
    forget: bool = False


def apply_orders(engine: FakeEngine, orders: Orders) -> None:
    """All or nothing. Raises ConfigError."""
    rules = None if orders.faults is None else parse_rules(orders.faults)
    spec = engine.spec
    if orders.spec is not None:
        try:
            spec = msgspec.convert({**msgspec.to_builtins(spec), **orders.spec}, UpstreamSpec)
        except msgspec.ValidationError as error:
            raise ConfigError(f"spec: {error}") from error
    if rules is not None:
        engine.script.replace(rules, engine.now())
    if orders.failures is not None:
        engine.script.failures = orders.failures
    if spec is not engine.spec:
        engine.reconfigure(spec)
    if orders.forget:
        engine.log.forget()


def serve_control(engine: FakeEngine, exchange: RawExchange, path: bytes, query: bytes) -> None:
    """POST /control · GET /control: state and script · GET /control/log?since=NUMBER: requests after that number."""
    if path == b"/control" and exchange.method == b"POST":
        _obey(engine, exchange)
    elif path == b"/control" and exchange.method == b"GET":
        exchange.respond(200, msgspec.json.encode(_state(engine)))
    elif path == b"/control/log" and exchange.method == b"GET":
        since = parse_qs(query.decode("latin-1")).get("since", ["0"])[0]
        seen = engine.log.since(int(since) if since.isdecimal() else 0)
        exchange.respond(200, msgspec.json.encode([as_line(entry) for entry in seen]))
    else:
        exchange.respond(404, error_body("no such control", "invalid_request_error"))


def _obey(engine: FakeEngine, exchange: RawExchange) -> None:
    try:
        apply_orders(engine, msgspec.json.decode(exchange.body, type=Orders))
    except (msgspec.MsgspecError, ConfigError) as error:
        exchange.respond(400, error_body(str(error), "invalid_request_error"))
        return
    exchange.respond(200, msgspec.json.encode(_state(engine)))


def _state(engine: FakeEngine) -> dict[str, object]:
    return {
        "running": engine.sequences.running,
        "waiting": engine.sequences.waiting,
        "kv_usage": engine.sequences.kv_usage,
        "arrived": engine.log.arrived,
        "open": len(engine.log.open),
        "endings": {ending.value: count for ending, count in engine.log.endings.items()},
        "faults": [
            {"rule": rule, "struck": struck} for rule, struck in zip(engine.script.rules, engine.script.struck, strict=True)
        ],
        "failures": engine.script.failures,
        "spec": engine.spec,
    }  # fmt: skip
