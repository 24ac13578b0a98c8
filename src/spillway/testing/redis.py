"""A Redis of one's own, as the stand-in for Valkey: on a free port of the loopback, without a disk. It can be paused, killed and started
again on the same port."""

import shutil
import signal
import socket
import subprocess
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Self

from spillway.core.clock import Seconds
from spillway.testing.processes import ProcessError

START_S = 10.0


def redis_binary() -> str | None:
    """None: there is neither a Valkey nor a Redis on this machine."""
    return shutil.which("valkey-server") or shutil.which("redis-server")


class RedisServer:
    """`with RedisServer() as server`: `server.url`. `options`: further lines of its command line, such as "--requirepass", "x"."""

    def __init__(self, *options: str, host: str = "127.0.0.1") -> None:
        self._options = options
        self._host = host
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self.port = 0

    @property
    def url(self) -> str:
        return f"redis://{self._host}:{self.port}"

    def __enter__(self) -> Self:
        self._folder = tempfile.TemporaryDirectory(prefix="spillway-redis-")
        with socket.socket() as probe:
            probe.bind((self._host, 0))
            self.port = int(probe.getsockname()[1])
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()
        if self._folder is not None:
            self._folder.cleanup()

    def start(self) -> None:
        """Empty, on the port it had. Raises ProcessError where it does not listen in time."""
        binary = redis_binary()
        if binary is None or self._folder is None:
            raise ProcessError("no redis-server is installed, or it is not entered")
        log = Path(self._folder.name) / "log"
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                [
                    binary, "--port", str(self.port), "--bind", self._host, "--save", "", "--appendonly", "no",
                    "--dir", self._folder.name, "--daemonize", "no", "--protected-mode", "no", *self._options,
                ],
                stdin=subprocess.DEVNULL, stdout=output, stderr=output,
            )  # fmt: skip
        self._wait_listening()

    def pause(self) -> None:
        """It takes connections, in the kernel, and says nothing."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    def kill(self) -> None:
        """As a machine that dies; what it knew is gone."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def _wait_listening(self, within_s: Seconds = START_S) -> None:
        assert self._process is not None
        for _ in range(int(within_s / 0.01)):
            try:
                with socket.create_connection((self._host, self.port), timeout=1.0) as talk:
                    talk.sendall(b"PING\r\n")
                    if talk.recv(64):
                        return
            except OSError:
                pass
            try:
                self._process.wait(0.01)
            except subprocess.TimeoutExpired:
                continue
            break
        raise ProcessError("the Redis of a test does not listen")
