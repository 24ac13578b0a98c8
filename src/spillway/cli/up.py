"""`spillway up`: two local clusters with the bundled model behind the gateway."""

import argparse
from pathlib import Path

import uvloop

from spillway.app.home import owned
from spillway.app.system import SystemClock
from spillway.app.up import Pace, bundled_model, up
from spillway.core.errors import UsageError
from spillway.telemetry import logs


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--home", type=Path, default=Path(".spillway"), metavar="DIR", help="state and keys (default: .spillway)"
    )
    parser.add_argument(
        "--port", type=int, default=8080, help="of the gateway; the admin port is one above (default: 8080)"
    )
    parser.add_argument("--workers", type=int, default=1, metavar="N", help="gateway workers (default: 1)")
    parser.add_argument("--model", type=Path, metavar="DIR", help="an OpenVINO model instead of the bundled one")
    parser.add_argument(
        "--pace-ms", type=float, default=Pace().step_ms, help="least time of an engine step (default: %(default)s)"
    )
    parser.add_argument(
        "--pace-per-seq-ms",
        type=float,
        default=Pace().sequence_ms,
        help="and for each sequence in it (default: %(default)s)",
    )


def run(arguments: argparse.Namespace) -> int:
    if not 1 <= arguments.port <= 65534:
        raise UsageError("--port must be between 1 and 65534")
    if not 1 <= arguments.workers <= 256:
        raise UsageError("--workers must be between 1 and 256")
    model = bundled_model() if arguments.model is None else arguments.model
    if not model.is_dir():
        raise UsageError(f"--model {model} is not a folder")
    if not (0 <= arguments.pace_ms < 60_000 and 0 <= arguments.pace_per_seq_ms < 60_000):
        raise UsageError("a pace is between 0 and 60000 ms")
    log = logs.configure(SystemClock())
    pace = Pace(arguments.pace_ms, arguments.pace_per_seq_ms)
    with owned(arguments.home):
        uvloop.run(up(arguments.home, arguments.port, arguments.workers, model, pace, log, _say))
    return 0


def _say(line: str) -> None:
    print(line, flush=True)
