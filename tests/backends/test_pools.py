"""Which endpoints requests can be sent to while the configuration changes."""

import asyncio

import uvloop

from spillway.backends.pools import PoolBackends
from spillway.backends.settings import UpstreamSpec
from spillway.core.ids import EndpointUrl, PoolName, VersionName
from spillway.net.ports import ConnectionFault, Headers
from spillway.net.settings import ClientLimits

EAST, WEST = PoolName("npc@east"), PoolName("npc@west")
ONE, OTHER = EndpointUrl("http://127.0.0.1:1"), EndpointUrl("http://127.0.0.1:2")


class Failure:
    """A receiver that waits for its fault."""

    def __init__(self) -> None:
        self.fault: asyncio.Future[ConnectionFault] = asyncio.get_running_loop().create_future()

    def response_head(self, status: int, headers: Headers) -> None:
        raise AssertionError("nobody answers")

    def response_body(self, data: bytes, pieces: list[bytes]) -> None:
        raise AssertionError("nobody answers")

    def response_end(self) -> None:
        raise AssertionError("nobody answers")

    def response_failed(self, fault: ConnectionFault, detail: str) -> None:
        self.fault.set_result(fault)


def spec(pool: PoolName, *endpoints: EndpointUrl) -> UpstreamSpec:
    return UpstreamSpec(pool, endpoints, "m", VersionName("v1"))


def test_what_left_the_configuration_fails_as_an_attempt_and_not_as_a_mistake() -> None:
    async def scenario() -> None:
        backends = PoolBackends(ClientLimits())
        backends.configure([spec(EAST, ONE), spec(WEST, ONE, OTHER)])
        backends.configure([spec(WEST, ONE)])
        assert backends.binding(EAST).version == "v1"
        for pool, endpoint in ((EAST, ONE), (WEST, OTHER)):
            failure = Failure()
            backends.send(pool, endpoint, b"/v1/chat/completions", b"", b"{}", failure)
            assert await asyncio.wait_for(failure.fault, 5.0) is ConnectionFault.CONNECT
        backends.close()

    uvloop.run(scenario())


def test_engines_in_clusters_are_asked_for_their_load_once_each_and_providers_never() -> None:
    async def scenario() -> None:
        backends = PoolBackends(ClientLimits())
        hosted = UpstreamSpec(
            PoolName("far"), (EndpointUrl("http://127.0.0.1:3/v1"),), "m", VersionName("v1"), hosted=True
        )
        backends.configure([spec(EAST, ONE), spec(WEST, ONE, OTHER), hosted])
        targets = list(backends.gauge_targets("/metrics"))
        assert [target.endpoint for target in targets] == [ONE, OTHER]
        assert targets[0].request.startswith(b"GET /metrics HTTP/1.1\r\n")
        assert list(backends.gauge_targets("")) == []
        backends.close()

    uvloop.run(scenario())
