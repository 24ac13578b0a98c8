"""Opens traces: by path, or by the short name of one that comes with Spillway. The one place that knows where those lie."""

import gzip
from collections.abc import Iterator
from pathlib import Path

import spillway
from spillway.wire.traces import Trace, TraceError, read_trace
from spillway.wire.traces_rates import Rates, read_rates

SHORT_NAMES = {
    "azure-code": "azure-code.csv.gz",
    "mooncake": "mooncake.jsonl.gz",
    "servegen-rates": "servegen-rates.csv.gz",
}
MAX_LINE_CHARS = 1 << 20


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


def locate(name: str) -> Path:
    """A short name's file lies in `traces/` of the checkout, or in the installed package. Anything else is a path.
    Raises TraceError when there is no such file."""
    if name not in SHORT_NAMES:
        path = Path(name)
        if not path.is_file():
            raise TraceError(f"no trace {name!r}: neither a file nor one of {', '.join(SHORT_NAMES)}")
        return path
    package = Path(spillway.__file__).resolve().parent
    for folder in (package.parents[1] / "traces", package / "traces"):
        if (folder / SHORT_NAMES[name]).is_file():
            return folder / SHORT_NAMES[name]
    raise TraceError(f"the trace {name!r} is not installed here; give its path")


def _lines(path: Path) -> Iterator[str]:
    """Lines of at most MAX_LINE_CHARS; a longer one comes in pieces, each of which is then a bad line. Bytes that are not
    UTF-8 become U+FFFD."""
    opened = gzip.open if path.suffix == ".gz" else open
    try:
        with opened(path, "rt", encoding="utf-8", errors="replace", newline="\n") as lines:
            while line := lines.readline(MAX_LINE_CHARS):
                yield line
    except (OSError, EOFError) as error:  # also what gzip says of a damaged file
        raise TraceError(f"cannot be read: {error}") from None
