"""The admin API against its own document: generated requests, and that no token reaches what is another organization's."""

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from spillway.api.admin import OPERATIONS
from spillway.api.document import openapi
from spillway.api.operation import Operation
from spillway.testing.spec import UpstreamSpec
from tests.e2e.gateway import Gateway, Site, live, running
from tests.e2e.talking import Answer, Json, Talk, request

pytestmark = pytest.mark.server

SLOW = [
    HealthCheck.too_slow,
    HealthCheck.function_scoped_fixture,
    HealthCheck.data_too_large,
    HealthCheck.filter_too_much,
]
DOCUMENT = openapi(OPERATIONS)
CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
SECRET = "hidden-words-of-alpha"


@pytest.fixture(scope="module")
def gateway() -> Iterator[Gateway]:
    with running() as started:
        yield started


def call(gateway: Gateway, secret: str, method: str, path: str, body: object = None) -> Answer:
    async def talk() -> Answer:
        content = b"" if body is None else json.dumps(body).encode()
        async with Talk(gateway.admin_port) as talking:
            talking.send(request(content, key=secret, path=path, method=method))
            return await talking.answer(method)

    return asyncio.run(talk())


def test_the_document_that_is_served_is_the_table(gateway: Gateway) -> None:
    assert call(gateway, gateway.admin_token, "GET", "/admin/v1/openapi.json").json == json.loads(json.dumps(DOCUMENT))


schema = schemathesis.openapi.from_dict(DOCUMENT)


@schema.parametrize()  # pyright: ignore[reportUntypedFunctionDecorator]
@settings(max_examples=15, deadline=None, suppress_health_check=SLOW)
def test_generated_requests_get_answers_as_the_document_says(gateway: Gateway, case: Any) -> None:
    case.call_and_validate(
        base_url=f"http://127.0.0.1:{gateway.admin_port}",
        headers={"authorization": f"Bearer {gateway.admin_token}"},
        checks=CHECKS,
    )


class Two:
    """Two organizations with a tenant, a key, a token and usage each; and a token of the second one."""

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway
        self.things: dict[str, list[str]] = {}
        for name in ("alpha", "beta"):
            self._done("PUT", f"/organizations/{name}", {"name": SECRET if name == "alpha" else ""})
            self._done(
                "PUT", f"/tenants/{name}-game", {"organization": name, "name": SECRET if name == "alpha" else ""}
            )
        made = self._done("POST", "/keys", {"tenant": "alpha-game", "name": SECRET})
        token = self._done("POST", "/tokens", {"role": "admin", "organization": "alpha", "name": SECRET})
        self.key_secret = made["secret"]
        self.things = {
            "organization": ["alpha"],
            "tenant": ["alpha-game"],
            "key": [made["key"]["id"]],
            "token": [token["token"]["id"]],
            "request": [],
        }
        self.foreign = self._done("POST", "/tokens", {"role": "admin", "organization": "beta"})["secret"]
        self.foreign_key = self._done("POST", "/keys", {"tenant": "beta-game"})["secret"]

    def _done(self, method: str, path: str, body: Json) -> Json:
        answer = call(self.gateway, self.gateway.admin_token, method, f"/admin/v1{path}", body)
        assert answer.status == 200, answer.body
        return answer.json

    def state(self) -> list[object]:
        """All that there is of the first organization."""
        paths = ("/organizations/alpha", "/tenants/alpha-game", "/keys?tenant=alpha-game", "/usage?tenant=alpha-game")
        seen = [call(self.gateway, self.gateway.admin_token, "GET", f"/admin/v1{path}").json for path in paths]
        tokens = call(self.gateway, self.gateway.admin_token, "GET", "/admin/v1/tokens").json["tokens"]
        return [*seen, [one for one in tokens if one["organization"] == "alpha"]]


@pytest.fixture(scope="module")
def two(gateway: Gateway) -> Two:
    made = Two(gateway)

    @live
    async def use() -> None:
        async with gateway.fleet(Site("east", UpstreamSpec(output_tokens=2))) as fleet:
            async with fleet.talk() as talk:
                talk.send(request(fleet.body(), key=made.key_secret))
                answer = await talk.answer()
                assert answer.status == 200, answer.body
            record = await gateway.record(answer.headers["x-request-id"])
            made.things["request"] = [record["request"]]

    use()
    return made


BODIES = st.sampled_from(
    [
        None,
        {},
        {"tenant": "alpha-game"},
        {"organization": "alpha"},
        {"role": "admin", "organization": "alpha"},
        {"name": "mine"},
    ]
)
QUERIES = st.sampled_from(
    [
        "",
        "?organization=alpha",
        "?tenant=alpha-game",
        "?target=alpha-game",
        "?after=&limit=1000",
        "?tenant=alpha-game&by=pool",
    ]
)


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda one: f"{one.method} {one.path}")
@given(body=BODIES, query=QUERIES)
@settings(max_examples=12, deadline=None, suppress_health_check=SLOW)
def test_no_operation_shows_or_changes_what_is_another_organization_s(
    two: Two, operation: Operation, body: Json | None, query: str
) -> None:
    """Whatever the document names: a new operation is tried by itself. Ids of the first organization, the token of the second."""
    path = operation.path
    method = operation.method
    for what, names in two.things.items():
        path = path.replace(f"{{{what}}}", names[0])
    path = path.replace("{pool}", "east-1")
    before = two.state()
    answer = call(two.gateway, two.foreign, method, path + query, body)
    assert two.state() == before
    assert answer.status < 500
    assert SECRET.encode() not in answer.body
    if "{" in operation.path:
        assert answer.status in (400, 403, 404), (method, path, answer.status)
    for names in two.things.values():
        shown = answer.body.replace(b"There is no", b"")
        assert answer.status >= 400 or names[0].encode() not in shown, (method, path + query, answer.body)
