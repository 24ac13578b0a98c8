"""How long the requests of clients are: quantiles of their input and output tokens, per client and six hours (ServeGen)."""

import math
from bisect import bisect_left
from collections.abc import Iterable
from itertools import accumulate

import msgspec

from spillway.core.clock import Seconds
from spillway.wire.traces import MAX_TOKENS, BadLine, BadLines, TraceError

WINDOW_S: Seconds = 21_600.0
PROBABILITIES = (*(step / 50 for step in range(50)), 0.985, 0.99, 0.995, 0.998, 0.999, 0.9995, 1.0)
HEADER = ("client", "offset_s", "tokens", *(f"p{100 * probability:g}" for probability in PROBABILITIES))

Quantiles = tuple[int, ...]
"""Tokens below which each of PROBABILITIES lies."""


class LengthWindow(msgspec.Struct, frozen=True, gc=False):
    """Of the requests of `client` that began in [offset_s, offset_s + WINDOW_S)."""

    client: int
    offset_s: Seconds
    inputs: Quantiles
    outputs: Quantiles


class Lengths(msgspec.Struct, frozen=True):
    """Windows in the order of the lines; those without traffic are absent. `bad` lines were left out, `first_bad` names some."""

    windows: list[LengthWindow]
    bad: int = 0
    first_bad: tuple[BadLine, ...] = ()


def read_lengths(lines: Iterable[str]) -> Lengths:
    """Reads a CSV with the columns of HEADER: two lines a window, `tokens` is `input` or `output`. A window with one good line is
    left out. Raises TraceError for another header and when there is no whole window."""
    rest = iter(lines)
    if tuple(next(rest, "").strip().split(",")) != HEADER:
        raise TraceError(f"line 1 is not the header {','.join(HEADER)}")
    found: dict[tuple[int, Seconds], dict[str, Quantiles]] = {}
    bad = BadLines()
    for number, line in enumerate(rest, 2):
        try:
            client, offset_s, which, quantiles = _parse(line)
            found.setdefault((client, offset_s), {})[which] = quantiles
        except ValueError as error:
            bad.add(number, str(error))
    windows = [
        LengthWindow(client, offset_s, of["input"], of["output"])
        for (client, offset_s), of in found.items()
        if len(of) == 2
    ]
    if not windows:
        raise bad.none_is_good()
    return Lengths(windows, bad.count, tuple(bad.first))


def write_lengths(windows: Iterable[LengthWindow]) -> Iterable[str]:
    """The lines that `read_lengths` reads."""
    yield ",".join(HEADER)
    for window in windows:
        for which, quantiles in (("input", window.inputs), ("output", window.outputs)):
            yield f"{window.client},{window.offset_s:g},{which},{','.join(map(str, quantiles))}"


def read_datasets(files: Iterable[tuple[int, str]]) -> Lengths:
    """Reads ServeGen's own files: of each client its number and the text of its `chunk-N-dataset.json`: by window, two histograms
    as text, `{"0": {"input_tokens": "{163: 0.25, …}", "output_tokens": "{…}"}}`. What is bad counts as line 1 of its file.
    Raises TraceError when no window is good."""
    windows: list[LengthWindow] = []
    bad = BadLines()
    for client, text in files:
        try:
            decoded = msgspec.json.decode(text, type=dict[str, _Histograms])
            windows += [
                LengthWindow(client, _offset(offset), quantiles(inputs), quantiles(outputs))
                for offset, of in decoded.items()
                if (inputs := _histogram(of.input_tokens)) and (outputs := _histogram(of.output_tokens))
            ]
        except (ValueError, RecursionError) as error:
            bad.add(1, f"chunk-{client}-dataset.json: {error}")
    if not windows:
        raise bad.none_is_good()
    return Lengths(windows, bad.count, tuple(bad.first))


def quantiles(histogram: dict[int, float]) -> Quantiles:
    """Of a histogram that is not empty: tokens → share. Shares need not sum to 1."""
    lengths = sorted(histogram)
    below = list(accumulate(histogram[length] for length in lengths))
    last = len(lengths) - 1
    return tuple(lengths[min(last, bisect_left(below, probability * below[-1]))] for probability in PROBABILITIES)


class _Histograms(msgspec.Struct):
    input_tokens: str
    output_tokens: str


def _histogram(text: str) -> dict[int, float]:
    inside = text.strip().removeprefix("{").removesuffix("}").strip()
    pairs = [pair.split(":") for pair in inside.split(",")] if inside else []
    histogram = {_tokens(length): float(share) for length, share in pairs}
    if not all(0 < share <= 1 for share in histogram.values()):
        raise ValueError("a share that is not between 0 and 1")
    return histogram


def _parse(line: str) -> tuple[int, Seconds, str, Quantiles]:
    cells = line.strip().split(",")
    if len(cells) != len(HEADER):
        raise ValueError(f"{len(cells)} columns instead of {len(HEADER)}")
    if cells[2] not in ("input", "output"):
        raise ValueError(f"{cells[2]!r} is neither input nor output")
    values = tuple(_tokens(cell) for cell in cells[3:])
    if list(values) != sorted(values):
        raise ValueError("quantiles that do not ascend")
    return int(cells[0]), _offset(cells[1]), cells[2], values


def _tokens(text: str) -> int:
    """At least 1: a request of no tokens is one of the shortest."""
    tokens = int(text)
    if not 0 <= tokens <= MAX_TOKENS:
        raise ValueError(f"a token count that is not between 0 and {MAX_TOKENS}")
    return max(1, tokens)


def _offset(text: str) -> Seconds:
    offset_s = float(text)
    if not (math.isfinite(offset_s) and offset_s >= 0):
        raise ValueError("a window that begins at no time")
    return offset_s
