"""Who asks: keys that are looked up while the client waits, or leaves; networks and suspension."""

import pytest

from spillway.core.ids import KeyId, TenantId
from spillway.core.outcome import Outcome
from spillway.core.priority import Priority
from spillway.gateway.networks import ELSEWHERE, SUSPENDED, Barred, Networks, address_of
from spillway.gateway.ports import Principal
from tests.gateway.bench import Bench

BODY = b'{"model": "npc", "messages": [{"role": "user", "content": "hello"}]}'
ANSWER = b'{"choices": [{"message": {"content": "hi"}}], "usage": {"prompt_tokens": 1, "completion_tokens": 1}}'
KEY = b"sk-key"


def test_a_request_goes_on_when_its_key_is_found() -> None:
    bench = Bench()
    client, _ = bench.ask_unseen(BODY)
    assert (client.refusal, bench.backends.attempts) == (None, [])
    bench.clock.advance(0.01)
    bench.keyring.answer()
    bench.last.answer(200, ANSWER)
    assert (client.status, client.got) == (200, ANSWER)
    (record,) = bench.sink.records
    assert (record.tenant, record.outcome, record.duration_s) == ("studio", Outcome.OK, pytest.approx(0.01))


def test_a_key_that_is_nobodys_is_refused_and_leaves_no_record() -> None:
    bench = Bench()
    client, _ = bench.ask_unseen(BODY, b"sk-nobodys")
    bench.keyring.answer()
    assert client.refusal == (Outcome.UNAUTHENTICATED, "")
    assert bench.observer.refusals == [Outcome.UNAUTHENTICATED]
    assert bench.sink.records == []


def test_a_key_that_cannot_be_looked_up_is_not_refused_as_wrong() -> None:
    bench = Bench()
    client, _ = bench.ask_unseen(BODY)
    bench.keyring.answer(unavailable=True)
    assert client.refusal is not None
    assert client.refusal[0] is Outcome.UNAVAILABLE
    assert client.retry_after_s == 1.0
    assert bench.observer.refusals == [Outcome.UNAVAILABLE]
    assert bench.sink.records == []


def test_a_client_that_leaves_while_its_key_is_looked_up_is_gone() -> None:
    bench = Bench()
    client, waiting = bench.ask_unseen(BODY)
    waiting.client_left()
    bench.keyring.answer()
    assert (bench.backends.attempts, client.refusal, client.closed) == ([], None, 0)
    assert bench.sink.records == []
    assert bench.driver.in_flight == 0


def test_after_the_look_up_the_client_is_listened_to_as_ever() -> None:
    bench = Bench()
    client, waiting = bench.ask_unseen(BODY)
    waiting.client_slow()  # there is nothing to slow down yet
    waiting.client_ready()
    bench.keyring.answer()
    waiting.client_slow()
    assert bench.last.paused
    waiting.client_ready()
    assert not bench.last.paused
    waiting.client_left()
    assert bench.last.cancelled
    assert [record.outcome for record in bench.sink.records] == [Outcome.CLIENT_LEFT]
    assert client.closed == 0


class BrokenNetworks(Networks):
    def bars(self, principal: Principal, peer: str, forwarded: str) -> Barred | None:
        raise RuntimeError("a mistake of ours")


def test_a_mistake_of_ours_harms_nobody_else_who_waits_for_a_key(caplog: pytest.LogCaptureFixture) -> None:
    bench = Bench()
    bench.keyring.add(b"sk-bound", networks=("10.0.0.0/8",))
    bench.pipeline.networks = BrokenNetworks()
    harmed, _ = bench.ask_unseen(BODY, b"sk-bound")
    other, _ = bench.ask_unseen(BODY)
    bench.keyring.answer()
    assert harmed.refusal == (Outcome.INTERNAL, "")
    assert (other.refusal, len(bench.running)) == (None, 1)
    assert "could not be taken" in caplog.text


def bound(*networks: str, suspended: bool = False) -> Principal:
    return Principal(KeyId("k"), TenantId("t"), None, Priority.BATCH, networks=networks, suspended=suspended)


@pytest.mark.parametrize(
    ("networks", "peer", "let_in"),
    [
        ((), "203.0.113.9", True),
        ((), "", True),
        (("10.0.0.0/8",), "10.1.2.3", True),
        (("10.0.0.0/8",), "11.1.2.3", False),
        (("10.0.0.0/8",), "::ffff:10.1.2.3", True),
        (("10.0.0.0/8",), "", False),
        (("10.0.0.0/8",), "not an address", False),
        (("10.0.0.0/8", "2001:db8::/32"), "2001:db8::1", True),
        (("2001:db8::/32",), "10.1.2.3", False),
        (("fe80::/10",), "fe80::1%eth0", True),
        (("10.9.9.9/8",), "10.1.2.3", True),  # bits of a host do no harm
        (("no network",), "10.1.2.3", False),
        (("no network", "10.0.0.0/8"), "10.1.2.3", True),
    ],
)
def test_a_key_may_be_bound_to_networks(networks: tuple[str, ...], peer: str, *, let_in: bool) -> None:
    door = Networks()
    for _ in range(2):  # read anew, and remembered
        assert door.bars(bound(*networks), peer, "") == (None if let_in else ELSEWHERE)
    assert door.bars(bound(*networks, suspended=True), peer, "") == SUSPENDED


@pytest.mark.parametrize(
    ("peer", "forwarded", "let_in"),
    [
        ("10.0.0.1", "192.0.2.7", True),
        ("10.0.0.1", "203.0.113.9", False),
        ("10.0.0.1", "192.0.2.7, 203.0.113.9", False),  # whoever came to the proxy may have made up the first
        ("10.0.0.1", "203.0.113.9, 192.0.2.7", True),
        ("10.0.0.1", "192.0.2.7, 10.0.0.2", True),  # two proxies of ours
        ("10.0.0.1", "192.0.2.7:5123", True),
        ("10.0.0.1", "nonsense", False),
        ("10.0.0.1", "192.0.2.7, nonsense", False),
        ("10.0.0.1", "", False),
        ("10.0.0.1", ",", False),
        ("203.0.113.9", "192.0.2.7", False),  # not through a proxy of ours
        ("192.0.2.7", "203.0.113.9", True),
        ("10.0.0.1", "192.0.2.7," + "10.0.0.2," * 1000 + "10.0.0.3", False),
    ],
)
def test_only_our_own_proxies_are_believed(peer: str, forwarded: str, *, let_in: bool) -> None:
    door = Networks(["10.0.0.0/8"])
    assert (door.bars(bound("192.0.2.0/24"), peer, forwarded) is None) == let_in


def test_addresses_in_the_words_of_proxies() -> None:
    for word in ("2001:db8::1", "[2001:db8::1]", "[2001:db8::1]:443"):
        assert str(address_of(word)) == "2001:db8::1"
    assert str(address_of("192.0.2.7:80")) == "192.0.2.7"
    assert address_of("unknown") is None
    assert address_of("[") is None


def test_who_comes_from_elsewhere_is_told_no_network_and_leaves_a_record() -> None:
    bench = Bench()
    bench.keyring.add(b"sk-bound", tenant="bound", networks=("192.0.2.0/24",))
    bench.pipeline.networks = Networks(["10.0.0.0/8"])
    client, _ = bench.ask(BODY, b"sk-bound", peer="10.0.0.1", forwarded="203.0.113.9")
    assert client.refusal == (Outcome.FORBIDDEN, ELSEWHERE.message)
    assert "192" not in ELSEWHERE.message
    assert client.code == "address_not_allowed"
    assert [(record.tenant, record.outcome) for record in bench.sink.records] == [("bound", Outcome.FORBIDDEN)]
    assert bench.backends.attempts == []
    bench.ask(BODY, b"sk-bound", peer="10.0.0.1", forwarded="192.0.2.7")
    assert len(bench.backends.attempts) == 1


def test_who_is_suspended_is_told_so() -> None:
    bench = Bench()
    bench.keyring.add(b"sk-suspended", suspended=True)
    client, _ = bench.ask(BODY, b"sk-suspended")
    assert (client.refusal, client.code) == ((Outcome.FORBIDDEN, SUSPENDED.message), "account_suspended")
    assert bench.backends.attempts == []
