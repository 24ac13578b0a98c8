"""What the configuration takes from environment variables: `${NAME}` inside of values, and the proxy of hosted pools."""

import re
from collections.abc import Mapping
from urllib.parse import urlsplit

import msgspec

from spillway.net.proxy import bypasses

_VARIABLE = re.compile(r"(\$?)\$\{(?:([A-Za-z_][A-Za-z0-9_]*)\})?")


class Substituted(msgspec.Struct, frozen=True):
    text: str
    from_environment: bool
    complaints: tuple[str, ...]


def substitute(text: str, environ: Mapping[str, str]) -> Substituted:
    """`${NAME}` becomes the variable's value and `$${` becomes `${`. What comes from a variable is not looked at again."""
    complaints: list[str] = []
    used = False

    def value_of(found: re.Match[str]) -> str:
        nonlocal used
        escaped, name = found[1], found[2]
        if escaped:
            return found[0][1:]
        used = True
        if name is None:
            complaints.append("${ must be followed by a name and }; $${ stands for ${")
        elif name not in environ:
            complaints.append(f"the environment variable {name} is not set")
        return environ.get(name or "", "")

    replaced = _VARIABLE.sub(value_of, text) if "${" in text else text
    return Substituted(replaced, used, tuple(complaints))


def proxy_for(url: str, environ: Mapping[str, str]) -> str | None:
    """The HTTP proxy for an https URL by HTTPS_PROXY and NO_PROXY (in lower case they win), None for none."""
    proxy = environ.get("https_proxy") or environ.get("HTTPS_PROXY")
    parts = urlsplit(url)
    if not proxy or parts.scheme != "https" or parts.hostname is None:
        return None
    exceptions = environ.get("no_proxy") or environ.get("NO_PROXY") or ""
    return None if bypasses(exceptions, parts.hostname, parts.port or 443) else proxy
