"""The batch workers of a host, as the parent keeps them: started again when they end, told to begin anew when the configuration changes."""

import asyncio
import contextlib
import logging
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from spillway.core.clock import Seconds

FIRST_BACKOFF_S = 0.2
MAX_BACKOFF_S = 10.0
STABLE_S = 10.0
STOP_S = 10.0


class BatchCrew:
    """`await run()` until cancelled. Each worker reads the configuration file itself; a pipe tells it when its parent is gone."""

    def __init__(
        self,
        count: int,
        path: Path,
        home: Path,
        gateways: Sequence[str],
        environ: Mapping[str, str],
        log: logging.Logger,
    ) -> None:
        self._count = count
        self._command = [
            sys.executable, "-m", "spillway", "batch", "worker", "--config", str(path.absolute()),
            "--home", str(home.absolute()), *(word for url in gateways for word in ("--gateway", url)),
        ]  # fmt: skip
        self._environ = dict(environ)
        self._log = log
        self._processes: set[asyncio.subprocess.Process] = set()

    @property
    def pids(self) -> list[int]:
        return [process.pid for process in self._processes]

    async def run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            for _ in range(self._count):
                tasks.create_task(self._keep())

    def restart(self) -> None:
        """They give back what is not finished, and others take their places."""
        for process in self._processes:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()

    async def _keep(self) -> None:
        failures, loop = 0, asyncio.get_running_loop()
        while True:
            started_at = loop.time()
            status = await self._once()
            if status == 0 or loop.time() - started_at >= STABLE_S:
                failures = 0
            if status:
                self._log.error("a batch worker ended by itself, another one is started", extra={"status": status})
            await asyncio.sleep(min(FIRST_BACKOFF_S * 2**failures, MAX_BACKOFF_S))
            failures = min(failures + 1, 10)

    async def _once(self) -> int:
        """One process, from its start to its end. Cancelled, it is ended."""
        read_end, write_end = os.pipe()
        try:
            process = await asyncio.create_subprocess_exec(
                *self._command, "--lifeline-fd", str(read_end), pass_fds=(read_end,), env=self._environ,
                stdin=asyncio.subprocess.DEVNULL, start_new_session=True,
            )  # fmt: skip
        except BaseException:
            os.close(write_end)
            raise
        finally:
            os.close(read_end)
        self._processes.add(process)
        try:
            return await process.wait()
        finally:
            self._processes.discard(process)
            await _end(process, STOP_S)
            os.close(write_end)


async def _end(process: asyncio.subprocess.Process, within_s: Seconds) -> None:
    if process.returncode is not None:
        return
    process.terminate()
    try:
        await asyncio.wait_for(process.wait(), within_s)
    except TimeoutError:
        process.kill()
        await process.wait()
