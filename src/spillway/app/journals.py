"""Where a worker's journal lies, and how many of earlier workers are kept."""

import logging
from pathlib import Path

from spillway.config import Configuration
from spillway.gateway.journal import Journal

JOURNALS_KEPT = 16  # of earlier workers


def journal_of(configuration: Configuration, home: Path, name: str, log: logging.Logger) -> Journal | None:
    settings = configuration.gateway.journal
    if settings is None:
        return None
    folder = home / "journal"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        earlier = sorted(folder.glob("*.jsonl"), key=lambda path: path.stat().st_mtime)
        for path in earlier[: max(0, len(earlier) - JOURNALS_KEPT)]:
            path.unlink(missing_ok=True)
        return Journal(folder / f"{name}.jsonl", settings.max_bytes)
    except OSError as error:
        log.error("there is no journal: %s", error)  # noqa: TRY400  to serve matters more
        return None
