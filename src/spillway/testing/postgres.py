"""A PostgreSQL of one's own: in a temporary folder, on a free port of the loopback, without fsync. It can be stopped in several ways and
started again on the same port. PostgreSQL refuses to run as root: then it runs as the user `postgres`, whom Debian's package makes."""

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import psycopg

from spillway.testing.processes import ProcessError, descendants

USER = "postgres"
START_TRIES = 500
_PLACES = ("/usr/lib/postgresql/*/bin", "/usr/local/pgsql/bin", "/opt/homebrew/opt/postgresql*/bin")


def postgres_folder() -> Path | None:
    """Where its programs are; None: it is not installed, or nobody is there to run it as."""
    found = shutil.which("initdb")
    places = [Path(found).parent] if found else []
    places += [path for place in _PLACES for path in sorted(Path("/").glob(place.lstrip("/")), reverse=True)]
    if os.getuid() == 0 and _owner() is None:
        return None
    return next((path for path in places if (path / "initdb").exists() and (path / "postgres").exists()), None)


def _owner() -> pwd.struct_passwd | None:
    try:
        return pwd.getpwnam(USER)
    except KeyError:
        return None


class PostgresServer:
    """`with PostgresServer() as server`: `server.database("name")` makes one and gives its URL. `host`: where it listens."""

    def __init__(self, *, host: str = "127.0.0.1") -> None:
        self._host = host
        self._programs = postgres_folder()
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._databases = 0
        self.port = 0

    def __enter__(self) -> Self:
        if self._programs is None:
            raise ProcessError("there is no PostgreSQL on this machine")
        self._folder = tempfile.TemporaryDirectory(prefix="spillway-postgres-")
        folder = Path(self._folder.name)
        owner = _owner()
        if os.getuid() == 0 and owner is not None:
            os.chown(folder, owner.pw_uid, owner.pw_gid)
        self._run(
            self._programs / "initdb", "--pgdata", str(folder / "data"), "--auth", "trust", "--no-sync",
            "--encoding", "UTF8", "--locale", "C.UTF-8", "--username", USER,
        )  # fmt: skip
        with (folder / "data" / "pg_hba.conf").open("a") as rules:
            rules.write("host all all 0.0.0.0/0 trust\n")
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
        """Raises ProcessError where it does not answer in time."""
        assert self._programs is not None
        assert self._folder is not None
        folder = Path(self._folder.name)
        with (folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    str(self._programs / "postgres"), "-D", str(folder / "data"), "-p", str(self.port), "-h", self._host,
                    "-k", str(folder), "-c", "fsync=off", "-c", "max_connections=200",
                ],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=folder, start_new_session=True, user=_user(), group=_group(),
            )  # fmt: skip
        for _ in range(START_TRIES):
            with contextlib.suppress(psycopg.Error), psycopg.connect(self.url("postgres"), connect_timeout=2):
                return
            try:
                self._process.wait(0.02)
            except subprocess.TimeoutExpired:
                continue
            break
        raise ProcessError(f"PostgreSQL does not answer: {(folder / 'log').read_text()[-500:]}")

    def url(self, database: str) -> str:
        return f"postgresql://{USER}@{self._host}:{self.port}/{database}"

    def database(self) -> str:
        """A new, empty one; its URL."""
        self._databases += 1
        name = f"spillway_{self._databases}"
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")  # pyright: ignore[reportArgumentType, reportCallIssue]
        return self.url(name)

    def kill(self) -> None:
        """As a machine that dies. What was committed is there when it starts again."""
        if self._process is not None:
            self._signal_all(signal.SIGKILL)
            self._process.wait()
            self._process = None

    def pause(self) -> None:
        self._signal_all(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal_all(signal.SIGCONT)

    def _signal_all(self, number: signal.Signals) -> None:
        """Its sessions are processes of their own."""
        assert self._process is not None
        for pid in (self._process.pid, *descendants(self._process.pid)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def _run(self, *command: str | Path) -> None:
        words: Sequence[str] = [str(word) for word in command]
        assert self._folder is not None
        done = subprocess.run(
            words, capture_output=True, text=True, cwd=self._folder.name, check=False, user=_user(), group=_group()
        )
        if done.returncode:
            raise ProcessError(f"{Path(words[0]).name}: {done.stderr[-500:]}")


def _user() -> int | None:
    owner = _owner()
    return None if os.getuid() or owner is None else owner.pw_uid


def _group() -> int | None:
    owner = _owner()
    return None if os.getuid() or owner is None else owner.pw_gid
