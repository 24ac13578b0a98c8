"""From a file to a configuration, or to all the mistakes in it."""

from collections.abc import Mapping
from pathlib import Path

import msgspec

from spillway.config.checks import check
from spillway.config.configuration import Configuration
from spillway.config.document import MAX_BYTES, Document
from spillway.config.environment import proxy_for
from spillway.config.problems import InvalidConfigurationError, Problem
from spillway.config.settings import Gateway, Pool
from spillway.config.shape import plain_tree

CLUSTER_PROBE_PATH = "/health"


def load(path: Path, environ: Mapping[str, str]) -> Configuration:
    """The configuration in the file. Raises InvalidConfigurationError with every mistake that was found.

    File names in it become absolute, and each hosted pool gets its proxy from the environment unless it names one.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
        if len(content) > MAX_BYTES:
            raise _unusable(path, f"the file is larger than {MAX_BYTES} bytes")
        text = content.decode()
    except OSError as error:
        raise _unusable(path, error.strerror or str(error)) from None
    except UnicodeDecodeError as error:
        raise _unusable(path, f"not UTF-8 (byte {error.start})") from None
    return parse(text, environ, file=str(path), folder=path.parent)


def parse(text: str, environ: Mapping[str, str], *, file: str, folder: Path) -> Configuration:
    """As `load`, for text. `folder` is where relative file names begin."""
    document = Document(file, text, environ)
    tree = plain_tree(document, Configuration)
    configuration = msgspec.convert(tree, Configuration)
    check(configuration, document, environ, folder)
    if document.problems:
        raise InvalidConfigurationError(document.problems)
    return msgspec.structs.replace(
        configuration,
        gateway=_with_files(configuration.gateway, folder),
        pools={name: _completed(pool, environ, folder) for name, pool in configuration.pools.items()},
    )


def _with_files(gateway: Gateway, folder: Path) -> Gateway:
    if gateway.tls is None:
        return gateway
    cert, key = _absolute(gateway.tls.cert, folder), _absolute(gateway.tls.key, folder)
    return msgspec.structs.replace(gateway, tls=msgspec.structs.replace(gateway.tls, cert=cert, key=key))


def _completed(pool: Pool, environ: Mapping[str, str], folder: Path) -> Pool:
    hosted = pool.base_url is not None
    proxy = pool.proxy
    if proxy is None and hosted:
        proxy = proxy_for(pool.urls[0], environ)
    probe_path = pool.probe_path
    if probe_path is None and not hosted:
        probe_path = CLUSTER_PROBE_PATH
    return msgspec.structs.replace(
        pool,
        proxy=None if proxy == "direct" else proxy,
        probe_path=probe_path or None,
        ca_file=None if pool.ca_file is None else _absolute(pool.ca_file, folder),
    )


def _absolute(name: str, folder: Path) -> str:
    return str((folder / name).resolve())


def _unusable(path: Path, message: str) -> InvalidConfigurationError:
    return InvalidConfigurationError([Problem(str(path), 0, 0, "", message)])
