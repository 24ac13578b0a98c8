"""What `spillway batch` shows: uploads and batches as bars, batches as a table."""

import contextlib
import sys
import threading
from collections.abc import Callable, Generator
from pathlib import Path

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.table import Table

from spillway.cli.batch_client import BatchClient, Json
from spillway.core.clock import Seconds

LOOK_S: Seconds = 0.5


class Shown:
    """Bars go to standard error, so that results can be read from standard output."""

    def __init__(self, as_json: bool) -> None:
        self.as_json = as_json
        self.console = Console(stderr=True, quiet=as_json)

    def upload(self, client: BatchClient, path: Path) -> Json:
        columns = (TextColumn("upload"), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
        with Progress(*columns, console=self.console, transient=True) as progress:
            task = progress.add_task("", total=path.stat().st_size if path.exists() else None)
            return client.upload(path, lambda count: progress.update(task, advance=count))


@contextlib.contextmanager
def counted(shown: Shown) -> Generator[Callable[[int], None]]:
    """A bar of lines; gives what is called with each new number of them."""
    columns = (TextColumn("lines"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.speed}"))
    with Progress(*columns, console=shown.console, speed_estimate_period=30.0) as progress:
        task = progress.add_task("", total=None)
        yield lambda count: progress.update(task, advance=count)


def followed(client: BatchClient, batch: str, ended: tuple[str, ...], shown: Shown) -> Json:
    """Looks at a batch until it is over. The rate is that of the last half minute."""
    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(), TextColumn("{task.fields[said]}"),
    )  # fmt: skip
    waiting = threading.Event()
    with Progress(*columns, console=shown.console, speed_estimate_period=30.0, refresh_per_second=4) as progress:
        task = progress.add_task(batch, total=None, rate="", said="")
        while True:
            now = client.batch(batch)
            counts = now["request_counts"]
            speed = progress.tasks[0].speed
            progress.update(
                task,
                description=now["status"],
                total=counts["total"] or None,
                completed=counts["completed"] + counts["failed"],
                rate="" if not speed else f"{speed:.1f} lines/s",
                said=f"{counts['failed']} failed, {now['usage']['total_tokens']} tokens, ${now.get('cost_usd', 0.0):.4f}",
            )
            if now["status"] in ended:
                return now
            waiting.wait(LOOK_S)


def table(batches: list[Json]) -> str:
    shown = Table(box=None, pad_edge=False)
    for column in ("batch", "status", "lines", "done", "failed", "tokens", "cost", "output", "errors"):
        shown.add_column(column, justify="right" if column in ("lines", "done", "failed", "tokens", "cost") else "left")
    for batch in batches:
        counts = batch["request_counts"]
        shown.add_row(
            batch["id"], batch["status"], str(counts["total"]), str(counts["completed"]), str(counts["failed"]),
            str(batch["usage"]["total_tokens"]), f"${batch.get('cost_usd', 0.0):.4f}",
            batch["output_file_id"] or "", batch["error_file_id"] or "",
        )  # fmt: skip
    console = Console(file=sys.stdout, width=200, no_color=True)
    with console.capture() as text:
        console.print(shown)
    return "\n".join(line.rstrip() for line in text.get().rstrip().splitlines())
