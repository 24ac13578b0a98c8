"""A process that takes a spool into its store until it is killed: `python spool_taker.py HOME`. Prints `ready` when it begins."""

import asyncio
import logging
import os
import sys
from pathlib import Path

from spillway.store.intake import Intake
from spillway.store.opening import Stores
from spillway.store.settings import Settings


async def main(home: Path) -> None:
    async with Stores(Settings(), home) as stores:
        os.write(1, b"ready\n")
        await Intake(home / "spool", stores.usage, log=logging.getLogger("spillway")).run()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
