"""The JSON document of a bench: the figures that others read, and how they came about."""

from collections.abc import Sequence

import msgspec

from spillway.load.bench import BenchReport
from spillway.load.options import BenchOptions
from spillway.load.requirement import Verdict

SLIP_WORTH_A_NOTE_MS = 20.0


def bench_document(report: BenchReport, verdicts: Sequence[Verdict], notes: Sequence[str]) -> dict[str, object]:
    """The keys of the best run's `BenchResult`, and beside them `chars_per_token` (measured or given), `stopped` (before the
    planned end), `requirements`, `notes` for people, and of a sweep all runs as `steps`."""
    document: dict[str, object] = msgspec.to_builtins(report.best.result)
    document["chars_per_token"] = report.yardstick.chars_per_token
    document["stopped"] = report.interrupted
    document["requirements"] = msgspec.to_builtins(verdicts)
    document["notes"] = list(notes)
    if len(report.steps) > 1:
        document["steps"] = [msgspec.to_builtins(step.result) for step in report.steps]
    return document


def notes_of(options: BenchOptions, report: BenchReport) -> list[str]:
    """What whoever reads the figures should know about them."""
    notes: list[str] = []
    best = report.best.result
    if report.interrupted:
        notes.append("Stopped before the planned end: these are the results so far.")
    if not report.yardstick.measured and options.yardstick is None:
        notes.append(
            "The server reports no usage: prompts were cut at 4 characters a token, and output tokens are counted events."
        )
    if options.trace is not None and options.trace.bad:
        first = ", ".join(f"line {bad.number}: {bad.reason}" for bad in options.trace.first_bad[:3])
        notes.append(f"{options.trace.bad} lines of the trace could not be read and were left out ({first}).")
    if options.trace is not None and options.trace.truncated:
        notes.append("The trace has more records than are read; its end was left out.")
    if best.slip_ms.p99 is not None and best.slip_ms.p99 > SLIP_WORTH_A_NOTE_MS:
        notes.append(
            f"1 % of the requests left {best.slip_ms.p99:.0f} ms or more after they were due, for lack of room under the cap "
            "or of CPU in this generator. The latencies contain it."
        )
    return notes
