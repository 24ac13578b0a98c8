"""The options of `spillway drill`, and what they become. The load is described as for `spillway bench`."""

import argparse
import math
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from spillway.cli import bench_arguments
from spillway.core.errors import UsageError
from spillway.load.drill_admin import AdminPort
from spillway.load.drill_faults import Commands, Fault, Kill, Stall, Starve
from spillway.load.options import DEFAULT_DURATION_S, BenchOptions
from spillway.load.schedule import Profile

FAULTS = {
    "starve": "POOL has another limit (--to)",
    "kill": "the engine of ENDPOINT gets SIGKILL",
    "stall": "the engine of ENDPOINT is stopped",
    "cut": "no endpoint of CLUSTER answers",
    "store": "the shared store is away",
}
_EPILOG = "\n".join(
    [
        "Faults:",
        *(f"  {name:7}{summary}" for name, summary in FAULTS.items()),
        "Load runs in three phases of --duration seconds each, with the same arrivals: before, during and after the fault.",
        "The fault is taken back afterwards, also after Ctrl-C, SIGTERM and SIGHUP.",
    ]
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = _EPILOG
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("fault", choices=FAULTS)
    parser.add_argument("place", nargs="?", metavar="POOL|ENDPOINT|CLUSTER", help="where; an endpoint by its URL")
    group = parser.add_argument_group("fault")
    add = group.add_argument
    add("--to", type=int, metavar="N", help="starve: the limit meanwhile")
    add("--command-down", metavar="WORDS", help="a shell command that makes the fault, for what is not on this machine")
    add("--command-up", metavar="WORDS", help="and one that takes it back; it may be run twice")
    add("--admin", default="http://127.0.0.1:8081", metavar="URL", help="the gateway's admin port (%(default)s)")
    add(
        "--admin-token-file",
        type=Path,
        default=Path(".spillway/admin.token"),
        metavar="FILE",
        help="(%(default)s)",
    )
    bench_arguments.add_arguments(parser)


def options_of(arguments: argparse.Namespace) -> BenchOptions:
    """Of one phase: without a warm-up, which is a phase of its own. Raises UsageError."""
    if Profile(arguments.profile) is Profile.SWEEP:
        raise UsageError("a drill has one load: --profile sweep makes no sense")
    if arguments.duration is None and arguments.trace is None:
        arguments.duration = DEFAULT_DURATION_S
    warmup_s, arguments.warmup = arguments.warmup, 0.0
    options = bench_arguments.options_of(arguments)
    arguments.warmup = warmup_s
    if not (math.isfinite(warmup_s) and warmup_s >= 0):
        raise UsageError("--warmup must not be below 0")
    return msgspec.structs.replace(options, duration_s=options.duration_s or DEFAULT_DURATION_S)


def admin_url(arguments: argparse.Namespace) -> str:
    """Without a slash at its end. Raises UsageError."""
    url: str = arguments.admin.rstrip("/")
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.path:
        raise UsageError(f"--admin {url!r} is not of the form http://host:port")
    return url


def admin_token(arguments: argparse.Namespace) -> str:
    """Raises UsageError."""
    try:
        token = arguments.admin_token_file.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"--admin-token-file {arguments.admin_token_file}: {error}") from None
    if not token.isprintable() or not token:
        raise UsageError(f"--admin-token-file {arguments.admin_token_file} holds no token")
    return token


async def fault_of(arguments: argparse.Namespace, admin: AdminPort) -> Fault:
    """Raises UsageError for what can't be meant or is not of this gateway, and AdminError."""
    fault, place, down, up = arguments.fault, arguments.place, arguments.command_down, arguments.command_up
    if (arguments.to is not None) != (fault == "starve"):
        raise UsageError("--to N belongs to starve, and starve needs it")
    if (down is None) != (up is None):
        raise UsageError("--command-down and --command-up: one is nothing without the other")
    if fault == "store":
        return _store(place, down, up)
    if place is None:
        raise UsageError(f"{fault}: what? {FAULTS[fault]}")
    if fault == "starve":
        if arguments.to < 0 or down is not None:
            raise UsageError("starve takes --to N, from 0 up, and no commands")
        return Starve(admin, place, arguments.to)
    urls = await (_cluster(admin, place) if fault == "cut" else _endpoint(admin, place))
    if down is not None:
        return Commands(f"{fault} {place}", down, up)
    return Kill(urls[0]) if fault == "kill" else Stall(f"{fault} {place}", urls)


def _store(place: str | None, down: str | None, up: str | None) -> Fault:
    if place is not None:
        raise UsageError("store takes no place: a gateway has one")
    if down is None or up is None:
        raise UsageError(
            "the store is SQLite in the gateway's own home unless it is a shared one, and only its operator can take that away: "
            "give --command-down and --command-up"
        )
    return Commands("drop the shared store", down, up)


async def _endpoint(admin: AdminPort, url: str) -> list[str]:
    known = [endpoint.url for pool in await admin.pools() for endpoint in pool.endpoints]
    if url.rstrip("/") not in (each.rstrip("/") for each in known):
        raise UsageError(f"{url!r} is none of the endpoints {', '.join(known)}")
    return [url]


async def _cluster(admin: AdminPort, cluster: str) -> list[str]:
    pools = await admin.pools()
    urls = [endpoint.url for pool in pools if pool.cluster == cluster for endpoint in pool.endpoints]
    if not urls:
        names = sorted({pool.cluster for pool in pools if pool.cluster})
        raise UsageError(f"{cluster!r} is none of the clusters {', '.join(names)}")
    return list(dict.fromkeys(urls))
