"""`spillway serve`: a gateway from a configuration file."""

import argparse
import os
from pathlib import Path

import msgspec
import uvloop

from spillway import config
from spillway.app.home import owned
from spillway.app.parent import Parent
from spillway.app.system import SystemClock
from spillway.core.errors import UsageError
from spillway.telemetry import logs


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", required=True, type=Path, metavar="FILE")
    parser.add_argument("--workers", type=int, metavar="N", help="instead of gateway.workers")
    parser.add_argument("--home", type=Path, metavar="DIR", help="instead of gateway.home (.spillway)")


def run(arguments: argparse.Namespace) -> int:
    environ = dict(os.environ)
    configuration = config.load(arguments.config, environ)
    if arguments.workers is not None:
        if not 1 <= arguments.workers <= 256:
            raise UsageError("--workers must be between 1 and 256")
        gateway = msgspec.structs.replace(configuration.gateway, workers=arguments.workers)
        configuration = msgspec.structs.replace(configuration, gateway=gateway)
    log = logs.configure(SystemClock(), level=configuration.telemetry.log_level)
    home: Path = arguments.home or Path(configuration.gateway.home)

    def ready(address: str) -> None:
        print(f"Spillway is ready: http://{address}/v1   admin: http://{configuration.gateway.admin}/", flush=True)

    with owned(home):
        uvloop.run(Parent(arguments.config, configuration, home, log, environ).run(ready))
    return 0
