"""The log of a run: one JSON line for every request, written as it ends. What was lost is counted from this."""

from pathlib import Path

import msgspec

from spillway.core.errors import ConfigError
from spillway.load.record import RequestRecord

_BUFFER_BYTES = 1 << 18


class RequestLog:
    """Call `flush` now and then, `close` at the end. When the disk fails, writing stops and `failure` says why: the run
    goes on, its figures do not come from the file."""

    def __init__(self, path: Path) -> None:
        """Raises ConfigError when the file cannot be written."""
        try:
            self._file = path.open("wb", buffering=_BUFFER_BYTES)
        except OSError as error:
            raise ConfigError(f"--log {path}: {error.strerror}") from None
        self._encoder = msgspec.json.Encoder()
        self.failure: str | None = None

    def write(self, record: RequestRecord) -> None:
        if self.failure is None:
            try:
                self._file.write(self._encoder.encode(record) + b"\n")
            except OSError as error:
                self.failure = str(error)

    def flush(self) -> None:
        if self.failure is None:
            try:
                self._file.flush()
            except OSError as error:
                self.failure = str(error)

    def close(self) -> None:
        self.flush()
        try:
            self._file.close()
        except OSError as error:
            self.failure = self.failure or str(error)
