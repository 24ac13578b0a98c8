"""`spillway engine`: one model from a folder, as a server of its own."""

import argparse
import logging
import sys

import msgspec

from spillway.core.errors import UsageError

KINDS = ("classifier", "embedding", "python")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--kind", choices=("text", *KINDS), default="text", help="what is served: generated text, or a custom model"
    )
    parser.add_argument(
        "--model",
        metavar="DIR|FILE.py:CLASS",
        help="folder of an OpenVINO model; of kind python: the class in your file",
    )
    parser.add_argument(
        "--name", help="what clients call the model (default: the folder's name, or that of its parent)"
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default %(default)s)")
    parser.add_argument("--port", type=int, required=True, help="port to listen on; 0 picks a free one")
    parser.add_argument(
        "--max-sequences", type=int, default=64, help="requests computed together (default %(default)s)"
    )
    parser.add_argument(
        "--max-waiting", type=int, default=256, help="requests that wait; over it 429 (default %(default)s)"
    )
    parser.add_argument(
        "--kv-cache-tokens", type=int, default=65_536, help="size of the KV cache (default %(default)s)"
    )
    parser.add_argument("--max-batched-tokens", type=int, default=512, help="tokens of one step (default %(default)s)")
    parser.add_argument("--threads", type=int, default=0, help="of the inference; 0: one per core (default)")
    parser.add_argument(
        "--max-batch", type=int, default=16, help="kinds but text: items computed together (default %(default)s)"
    )
    parser.add_argument(
        "--max-delay-ms", type=float, default=5.0, help="kinds but text: longest wait for others (default %(default)s)"
    )
    parser.add_argument("--pace-ms", type=float, default=0.0, help="A: a step of n sequences lasts at least A + B·n")
    parser.add_argument("--pace-per-seq-ms", type=float, default=0.0, help="B")
    parser.add_argument(
        "--drain-s", type=float, default=30.0, help="how long SIGTERM waits for what runs (default %(default)s)"
    )
    parser.add_argument("--parent-pid", type=int, help="end when this process is gone")
    parser.add_argument("--lifeline-fd", type=int, help="end when the other end of this pipe is closed")
    parser.add_argument("--json", action="store_true", help="say that it is ready in one line of JSON")


def run(arguments: argparse.Namespace) -> int:
    from spillway.app.system import SystemClock, SystemRng
    from spillway.engine.process import Parent, run_engine
    from spillway.engine.settings import EngineSettings

    if arguments.kind != "text":
        return _run_micro(arguments)
    if arguments.model is None:
        raise UsageError("--model is missing")
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    chosen = {
        "model": arguments.model,
        "name": arguments.name or _name(arguments.model),
        "host": arguments.host,
        "port": arguments.port,
        "max_sequences": arguments.max_sequences,
        "max_waiting": arguments.max_waiting,
        "kv_cache_tokens": arguments.kv_cache_tokens,
        "max_batched_tokens": arguments.max_batched_tokens,
        "threads": arguments.threads,
        "pace_ms": arguments.pace_ms,
        "pace_per_sequence_ms": arguments.pace_per_seq_ms,
        "drain_s": arguments.drain_s,
    }
    try:
        settings = msgspec.convert(chosen, EngineSettings)
    except msgspec.ValidationError as error:
        raise UsageError(str(error)) from error
    name = settings.name

    def announce(url: str) -> None:
        if arguments.json:
            print(msgspec.json.encode({"ready": True, "model": name, "url": url}).decode(), flush=True)
        else:
            print(f"engine ready: {name} at {url}/v1", flush=True)

    return run_engine(
        settings, Parent(pid=arguments.parent_pid, lifeline=arguments.lifeline_fd), SystemClock(), SystemRng(), announce
    )


def _run_micro(arguments: argparse.Namespace) -> int:
    from spillway.app.system import SystemClock, SystemRng
    from spillway.engine.micro.kinds import made
    from spillway.engine.micro.process import run_micro_engine
    from spillway.engine.micro.settings import MicroSettings
    from spillway.engine.process import Parent

    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    model, folder = made(arguments.kind, arguments.model)
    chosen = {
        "name": arguments.name or folder.name,
        "host": arguments.host,
        "port": arguments.port,
        "drain_s": arguments.drain_s,
        "rules": {"max_batch": arguments.max_batch, "max_delay_s": arguments.max_delay_ms / 1000},
    }
    try:
        settings = msgspec.convert(chosen, MicroSettings)
    except msgspec.ValidationError as error:
        raise UsageError(str(error)) from error

    def announce(url: str) -> None:
        if arguments.json:
            print(msgspec.json.encode({"ready": True, "model": settings.name, "url": url}).decode(), flush=True)
        else:
            print(f"engine ready: {settings.name} at {url}/v1/{model.task}", flush=True)

    parent = Parent(pid=arguments.parent_pid, lifeline=arguments.lifeline_fd)
    return run_micro_engine(settings, model, folder, parent, SystemClock(), SystemRng(), announce)


def _name(folder: str) -> str:
    """models/npc-1.9m/openvino is npc-1.9m."""
    from pathlib import Path

    path = Path(folder).resolve()
    return path.parent.name if path.name in ("openvino", "hf") else path.name
