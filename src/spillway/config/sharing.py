"""What can be wrong with `shared`: an address that nobody can ask, or times in an order in which no limit would hold."""

from urllib.parse import urlsplit

from spillway.config.settings import Shared
from spillway.quota.ledger import LedgerTimes

_EXPECTED = "expected redis://[:PASSWORD@]HOST[:PORT][/DATABASE], or rediss:// for TLS"


def wrong_with_shared(shared: Shared) -> list[tuple[str, str]]:
    """Pairs of a field, such as `times.grace_s`, and what is wrong with it. An address is not shown: it may hold a password."""
    found: list[tuple[str, str]] = []
    if shared.url is not None and not _is_address(shared.url):
        found.append(("url", _EXPECTED))
    if shared.times != LedgerTimes():
        found += [(f"times.{name}", message) for name, message in _wrong_order(shared.times)]
        if shared.url is not None and shared.times.learn_s < shared.times.stop_s:
            found.append(
                ("times.learn_s", "must be at least stop_s: so long members may live on what a lost ledger gave them")
            )
    return found


def _is_address(url: str) -> bool:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return False
    database = parts.path.strip("/")
    return (
        parts.scheme in ("redis", "rediss")
        and bool(parts.hostname)
        and port != 0
        and (not database or database.isdigit())
    )


def _wrong_order(times: LedgerTimes) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    if times.grace_s <= times.report_s + times.timeout_s:
        found.append(("grace_s", "must be more than report_s and timeout_s together"))
    if times.lease_s < times.grace_s:
        found.append(("lease_s", "must be at least grace_s"))
    if times.stop_s < times.lease_s:
        found.append(("stop_s", "must be at least lease_s"))
    if times.forget_s < times.stop_s + times.timeout_s:
        found.append(("forget_s", "must be at least stop_s and timeout_s together"))
    return found
