"""`spillway batch`: offline jobs of a tenant through the public API, and the workers that execute them."""

import argparse
import asyncio
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from spillway.cli.batch_client import BatchClient, Json
from spillway.cli.batch_view import Shown, counted, followed, table
from spillway.core.errors import SpillwayError, UsageError
from spillway.wire.batch_lines import ENDPOINTS

KEY = "SPILLWAY_API_KEY"
ENDED = ("completed", "failed", "expired", "cancelled")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    verbs = parser.add_subparsers(dest="batch_verb", metavar="submit|wait|list|show|cancel|fetch|worker", required=True)
    submit = _verb(verbs, "submit", "upload a JSONL file and make a batch of it")
    submit.add_argument("file", type=Path, metavar="FILE")
    submit.add_argument("--endpoint", choices=ENDPOINTS, default=ENDPOINTS[0])
    submit.add_argument("--metadata", action="append", default=[], metavar="NAME=VALUE")
    submit.add_argument(
        "--executor",
        choices=("gateway", "ray"),
        default="gateway",
        help="who computes the lines: ray for very large files",
    )
    submit.add_argument(
        "--output", type=Path, metavar="DIR", help="ray: where results go; begun again, it goes on there"
    )
    submit.add_argument("--ray-address", metavar="HOST:PORT", help="ray: of the cluster; none: one on this machine")
    submit.add_argument("--ray-workers", type=int, default=2, metavar="N", help="ray: blocks at a time (default 2)")
    submit.add_argument(
        "--in-flight", type=int, default=32, metavar="N", help="ray: lines of a block at a time (default 32)"
    )
    submit.add_argument("--wait", action="store_true", help="show its progress until it is over")
    for name, summary in (
        ("wait", "show a batch's progress until it is over"),
        ("show", "one batch"),
        ("cancel", "end a batch; what is finished stays"),
    ):
        _verb(verbs, name, summary).add_argument("batch", metavar="BATCH")
    listing = _verb(verbs, "list", "the latest batches")
    listing.add_argument("--limit", type=int, default=20, metavar="N")
    fetch = _verb(verbs, "fetch", "the results of a batch")
    fetch.add_argument("batch", metavar="BATCH")
    fetch.add_argument("--output", type=Path, metavar="FILE", help="none: to standard output")
    fetch.add_argument("--errors", type=Path, metavar="FILE", help="where lines go that failed")
    worker = verbs.add_parser("worker", help="work on batches, on any number of hosts")
    worker.add_argument("--config", type=Path, required=True, metavar="FILE")
    worker.add_argument("--home", type=Path, metavar="DIR", help="instead of gateway.home")
    worker.add_argument("--gateway", action="append", default=[], metavar="URL", help="where lines are sent")
    worker.add_argument("--lifeline-fd", type=int, help="end when the other end of this pipe is closed")


def run(arguments: argparse.Namespace) -> int:
    if arguments.batch_verb == "worker":
        return _work(arguments)
    client = BatchClient(arguments.url, _key(arguments))
    verbs: dict[str, Callable[[BatchClient, argparse.Namespace], int]] = {
        "submit": _submit,
        "wait": lambda client, given: _wait(client, given.batch, Shown(given.json)),
        "show": _show,
        "cancel": _cancel,
        "list": _list,
        "fetch": _fetch,
    }
    return verbs[arguments.batch_verb](client, arguments)


def _verb(verbs: Any, name: str, summary: str) -> argparse.ArgumentParser:
    parser = verbs.add_parser(name, help=summary)
    parser.add_argument("--url", default="http://127.0.0.1:8080", metavar="URL", help="of the gateway")
    parser.add_argument("--key", metavar="KEY", help=f"else {KEY}, else that of HOME/demo.key")
    parser.add_argument("--home", type=Path, default=Path(".spillway"), metavar="DIR")
    parser.add_argument("--json", action="store_true")
    return parser


def _key(arguments: argparse.Namespace) -> str:
    given = arguments.key or os.environ.get(KEY)
    if given:
        return given
    try:
        return (arguments.home / "demo.key").read_text().strip()
    except OSError:
        raise UsageError(f"there is no key: give --key, or set {KEY}") from None


def _submit(client: BatchClient, arguments: argparse.Namespace) -> int:
    if arguments.executor == "ray":
        return _ray(arguments)
    metadata: dict[str, str] = {}
    for one in arguments.metadata:
        name, equals, value = one.partition("=")
        if not equals:
            raise UsageError(f"{one}: expected NAME=VALUE")
        metadata[name] = value
    shown = Shown(arguments.json)
    file = shown.upload(client, arguments.file)
    body: Json = {"input_file_id": file["id"], "endpoint": arguments.endpoint, "completion_window": "24h"}
    batch = client.call("POST", "/v1/batches", body | ({"metadata": metadata} if metadata else {}))
    if arguments.wait:
        return _wait(client, str(batch["id"]), shown)
    return _told(batch, arguments)


def _ray(arguments: argparse.Namespace) -> int:
    try:
        from spillway.app.ray_batch import Task, job_name, run
    except ImportError as error:
        raise UsageError(f"--executor ray needs spillway[ray]: {error}") from None
    if arguments.output is None:
        raise UsageError("--executor ray needs --output DIR")
    path: Path = arguments.file
    task = Task(
        gateway=arguments.url.removesuffix("/v1"),
        key=_key(arguments),
        endpoint=arguments.endpoint,
        folder=str(arguments.output.resolve()),
        name=job_name(path),
        in_flight=arguments.in_flight,
    )
    with counted(Shown(arguments.json)) as done:
        outcome = run(path, task, arguments.ray_address, arguments.ray_workers, done)
    print(json.dumps({name: getattr(outcome, name) for name in outcome.__struct_fields__}))
    return 1 if outcome.failed else 0


def _wait(client: BatchClient, batch: str, shown: Shown) -> int:
    ended = followed(client, batch, ENDED, shown)
    print(json.dumps(ended, indent=2) if shown.as_json else table([ended]))
    for mistake in (ended.get("errors") or {}).get("data", [])[:10]:
        where = "" if mistake["line"] is None else f"line {mistake['line']}: "
        print(f"spillway batch: {where}{mistake['message']}", file=sys.stderr)
    return 0 if ended["status"] == "completed" else 1


def _show(client: BatchClient, arguments: argparse.Namespace) -> int:
    return _told(client.batch(arguments.batch), arguments)


def _cancel(client: BatchClient, arguments: argparse.Namespace) -> int:
    return _told(client.call("POST", f"/v1/batches/{arguments.batch}/cancel"), arguments)


def _list(client: BatchClient, arguments: argparse.Namespace) -> int:
    page = client.call("GET", f"/v1/batches?limit={arguments.limit}")
    print(json.dumps(page, indent=2) if arguments.json else table(page["data"]))
    return 0


def _fetch(client: BatchClient, arguments: argparse.Namespace) -> int:
    batch = client.batch(arguments.batch)
    if batch["status"] not in ENDED:
        raise SpillwayError(f"{batch['id']} is {batch['status']}: there is nothing to fetch yet")
    for name, path in (("output_file_id", arguments.output), ("error_file_id", arguments.errors)):
        file = batch[name]
        if file is None or (name == "error_file_id" and path is None):
            continue
        if path is None:
            client.download(file, sys.stdout.buffer)
            continue
        draft = path.with_name(f".{path.name}.{os.getpid()}")
        with draft.open("wb") as target:
            client.download(file, target)
        draft.replace(path)
    return 0


def _told(batch: Json, arguments: argparse.Namespace) -> int:
    print(json.dumps(batch, indent=2) if arguments.json else table([batch]))
    return 0


def _work(arguments: argparse.Namespace) -> int:
    from spillway import config
    from spillway.app.batching import work
    from spillway.app.listeners import reachable
    from spillway.app.system import SystemClock
    from spillway.telemetry import logs

    configuration = config.load(arguments.config, dict(os.environ))
    log = logs.configure(SystemClock(), level=configuration.telemetry.log_level)
    gateway = configuration.gateway
    scheme = "http" if gateway.tls is None else "https"
    own = f"{scheme}://{reachable(gateway.listen)}"
    gateways = arguments.gateway or configuration.batch.gateways or (own,)
    home: Path = arguments.home or Path(gateway.home)
    asyncio.run(work(configuration, home, gateways, log, arguments.lifeline_fd))
    return 0
