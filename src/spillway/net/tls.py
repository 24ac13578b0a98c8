"""TLS contexts from files. TLS 1.2 at least; HTTP/1.1 is the only protocol offered."""

import ssl
from pathlib import Path

from spillway.core.errors import ConfigError

PROTOCOLS = ["http/1.1"]


def server_context(certificate: Path, key: Path) -> ssl.SSLContext:
    """For a server. `certificate`: PEM, the server's own first, then the chain. `key`: PEM, not encrypted. Raises ConfigError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols(PROTOCOLS)
    _require(certificate, "TLS certificate")
    _require(key, "TLS key")
    try:
        context.load_cert_chain(certificate, key, password=_refuse_password)
    except (ssl.SSLError, OSError, ValueError) as error:
        raise ConfigError(
            f"the TLS certificate {certificate} and key {key} cannot be used: {_reason(error)}"
        ) from error
    return context


def client_context(authorities: Path | None = None) -> ssl.SSLContext:
    """For a client that verifies names and certificates, against the system's authorities or those in a PEM file. Raises ConfigError."""
    if authorities is not None:
        _require(authorities, "file of TLS authorities")
    try:
        context = ssl.create_default_context(ssl.Purpose.SERVER_AUTH, cafile=authorities)
    except (ssl.SSLError, OSError) as error:
        raise ConfigError(f"the TLS authorities in {authorities} cannot be used: {_reason(error)}") from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(PROTOCOLS)
    return context


def _require(path: Path, what: str) -> None:
    if not path.is_file():
        raise ConfigError(f"there is no {what} at {path}")


def _refuse_password() -> str:
    raise ValueError("the key is encrypted")  # otherwise OpenSSL would ask on the terminal


def _reason(error: Exception) -> str:
    return getattr(error, "reason", None) or str(error)
