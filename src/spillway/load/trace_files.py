"""Opens traces: by path, or by the short name of one that comes with Spillway. The one place that knows where those lie."""

import gzip
import re
from collections.abc import Iterator
from pathlib import Path

import msgspec

import spillway
from spillway.wire.traces import Trace, TraceError
from spillway.wire.traces_formats import read_trace
from spillway.wire.traces_lengths import Lengths, read_datasets, read_lengths
from spillway.wire.traces_rates import Rates, read_chunks, read_rates

SHORT_NAMES = {
    "azure-code": "azure-code.csv.gz",
    "mooncake": "mooncake.jsonl.gz",
    "servegen-rates": "servegen-rates.csv.gz",
    "servegen-lengths": "servegen-lengths.csv.gz",
}
TRACE_NAMES = ("azure-code", "mooncake")
"""Of these the traces of requests: what `load_trace` reads."""

SERVEGEN = "servegen"
"""Stands for its rates and lengths together."""

MAX_LINE_CHARS = 1 << 20
_CHUNK = re.compile(r"chunk-(\d+)-(trace\.csv|dataset\.json)")


class ServeGen(msgspec.Struct, frozen=True):
    """What ServeGen says of its clients: when they send, and how long their requests are."""

    rates: Rates
    lengths: Lengths


def load_trace(name: str) -> Trace:
    """Reads the trace at a path (plain or .gz) or with a short name. Raises TraceError, with the path in its text."""
    path = locate(name)
    try:
        return read_trace(_lines(path))
    except TraceError as error:
        raise TraceError(f"{path}: {error}") from None


def load_rates(name: str) -> Rates:
    """As `load_trace`, for a trace of rates."""
    path = locate(name)
    try:
        return read_rates(_lines(path))
    except TraceError as error:
        raise TraceError(f"{path}: {error}") from None


def load_servegen(name: str = SERVEGEN) -> ServeGen:
    """Reads the files that come along, or a folder of ServeGen's `chunk-N-trace.csv` and `chunk-N-dataset.json`.

    Raises TraceError, with the path in its text.
    """
    if name == SERVEGEN:
        path = locate("servegen-lengths")
        try:
            return ServeGen(load_rates("servegen-rates"), read_lengths(_lines(path)))
        except TraceError as error:
            raise TraceError(f"{path}: {error}") from None
    folder = Path(name)
    chunks = {(int(found[1]), found[2]): path for path in _listed(folder) if (found := _CHUNK.fullmatch(path.name))}
    clients = sorted({client for client, _ in chunks})
    try:
        rates = read_chunks(
            (client, _lines(chunks[client, "trace.csv"])) for client in clients if (client, "trace.csv") in chunks
        )
        lengths = read_datasets(
            (client, _text(chunks[client, "dataset.json"])) for client in clients if (client, "dataset.json") in chunks
        )
    except TraceError as error:
        raise TraceError(f"{folder}: {error}") from None
    return ServeGen(rates, lengths)


def is_servegen(name: str) -> bool:
    """Whether `load_servegen`, not `load_trace`, reads what has this name: rates, of which arrivals are made by chance."""
    return name == SERVEGEN or (name not in SHORT_NAMES and Path(name).is_dir())


def locate(name: str) -> Path:
    """A short name's file lies in `traces/` of the checkout, or in the installed package. Anything else is a path.
    Raises TraceError when there is no such file."""
    if name not in SHORT_NAMES:
        path = Path(name)
        if not path.is_file():
            raise TraceError(f"no trace {name!r}: neither a file nor one of {', '.join(TRACE_NAMES)}")
        return path
    package = Path(spillway.__file__).resolve().parent
    for folder in (package.parents[1] / "traces", package / "traces"):
        if (folder / SHORT_NAMES[name]).is_file():
            return folder / SHORT_NAMES[name]
    raise TraceError(f"the trace {name!r} is not installed here; give its path")


def _listed(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError as error:
        raise TraceError(f"{folder}: {error.strerror}") from None


def _lines(path: Path) -> Iterator[str]:
    """Of a line longer than MAX_LINE_CHARS only so much comes: it is a bad one. Bytes that are not UTF-8 become U+FFFD."""
    opened = gzip.open if path.suffix == ".gz" else open
    try:
        with opened(path, "rt", encoding="utf-8", errors="replace", newline="\n") as lines:
            while line := lines.readline(MAX_LINE_CHARS):
                yield line
                while len(line) == MAX_LINE_CHARS and not line.endswith("\n"):
                    line = lines.readline(MAX_LINE_CHARS)
    except (OSError, EOFError) as error:  # also what gzip says of a damaged file
        raise TraceError(f"cannot be read: {error}") from None


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise TraceError(f"cannot be read: {error}") from None
