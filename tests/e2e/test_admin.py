"""The admin API as developers and operators use it: roles, organizations, keys, what is repeated, what is written down."""

import json
from collections.abc import Iterator

import pytest

from tests.e2e.gateway import Gateway, live, running
from tests.e2e.settling import VANISHES_S, settles
from tests.e2e.talking import Answer, Json, Talk, request

pytestmark = pytest.mark.server


@pytest.fixture(scope="module")
def gateway() -> Iterator[Gateway]:
    with running(
        plans={"small": {"requests_per_minute": 60}},
        pools={
            "east": {"model": "m", "cluster": "here", "endpoints": ["http://127.0.0.1:9"], "limit": 4, "probe_path": ""}
        },
        models={"npc": {"tiers": [["east"]]}},
    ) as started:
        yield started


class Desk:
    """The admin API with one token."""

    def __init__(self, gateway: Gateway, secret: str) -> None:
        self._gateway = gateway
        self._secret = secret

    async def __call__(self, method: str, path: str, body: Json | None = None, **headers: str) -> Answer:
        content = b"" if body is None else json.dumps(body).encode()
        lines = {name.replace("_", "-"): value for name, value in headers.items()}
        async with Talk(self._gateway.admin_port) as talk:
            talk.send(request(content, key=self._secret, path=f"/admin/v1{path}", method=method, headers=lines))
            return await talk.answer(method)

    async def done(self, method: str, path: str, body: Json | None = None, **headers: str) -> Json:
        answer = await self(method, path, body, **headers)
        assert answer.status in (200, 204), (method, path, answer.status, answer.body)
        return answer.json if answer.body else {}

    async def token(self, role: str, organization: str | None = None) -> "Desk":
        made = await self.done("POST", "/tokens", {"role": role, "organization": organization})
        return Desk(self._gateway, made["secret"])


def first(gateway: Gateway) -> Desk:
    return Desk(gateway, gateway.admin_token)


async def studio(desk: Desk, name: str) -> None:
    """An organization with a tenant of the same name."""
    await desk.done("PUT", f"/organizations/{name}", {"plan": "small"})
    await desk.done("PUT", f"/tenants/{name}", {"organization": name, "quota": {"in_flight": 3, "usd_per_month": 5}})


@live
async def test_a_developer_manages_the_keys_of_their_own_organization_and_sees_no_other(gateway: Gateway) -> None:
    desk = first(gateway)
    await studio(desk, "alpha")
    await studio(desk, "beta")
    theirs = await desk.token("operator", "alpha")
    made = await theirs.done("POST", "/keys", {"tenant": "alpha", "models": ["npc"], "name": "game"})
    foreign = await desk.done("POST", "/keys", {"tenant": "beta"})
    key, other = made["key"]["id"], foreign["key"]["id"]
    assert {one["id"] for one in (await theirs.done("GET", "/keys"))["keys"]} == {key}
    assert [one["id"] for one in (await theirs.done("GET", "/tenants"))["tenants"]] == ["alpha"]
    assert [one["id"] for one in (await theirs.done("GET", "/organizations"))["organizations"]] == ["alpha"]
    assert (await theirs.done("GET", "/tenants/alpha"))["quota"] == {"in_flight": 3, "usd_per_month": 5.0}
    for method, path, body in (
        ("GET", f"/keys/{other}", None),
        ("PATCH", f"/keys/{other}", {"name": "mine"}),
        ("POST", f"/keys/{other}/rotate", {}),
        ("DELETE", f"/keys/{other}", None),
        ("POST", "/keys", {"tenant": "beta"}),
        ("GET", "/tenants/beta", None),
        ("GET", "/organizations/beta", None),
        ("GET", "/usage?tenant=beta", None),
        ("GET", "/usage?organization=beta", None),
    ):
        assert (await theirs(method, path, body)).status == 404, (method, path)
    for method, path in (("GET", "/pools"), ("POST", "/reload"), ("DELETE", "/tenants/alpha"), ("POST", "/tokens")):
        assert (await theirs(method, path, {})).status == 403, (method, path)
    assert (await desk.done("GET", f"/keys/{other}"))["name"] == ""


@live
async def test_roles_cover_what_is_below_them(gateway: Gateway) -> None:
    desk = first(gateway)
    reader, operator = await desk.token("read-only"), await desk.token("operator")
    assert (await reader("GET", "/pools")).status == 200
    assert (await reader("POST", "/keys", {"tenant": "t"})).status == 403
    assert (await operator("POST", "/keys", {"tenant": "t"})).status == 200
    assert (await operator("PUT", "/organizations/gamma", {})).status == 403
    assert (await operator("GET", "/tokens")).status == 403
    assert (await Desk(gateway, "sk-" + "a" * 40)("GET", "/pools")).status == 401
    assert (await Desk(gateway, "")("GET", "/nothing")).status == 401


@live
async def test_a_revoked_token_is_nobody_s_at_once(gateway: Gateway) -> None:
    desk = first(gateway)
    made = await desk.done("POST", "/tokens", {"role": "read-only", "name": "ci"})
    theirs = Desk(gateway, made["secret"])
    assert (await theirs("GET", "/pools")).status == 200
    await desk.done("DELETE", f"/tokens/{made['token']['id']}")
    assert (await theirs("GET", "/pools")).status == 401
    listed = {one["id"]: one for one in (await desk.done("GET", "/tokens"))["tokens"]}
    assert listed[made["token"]["id"]]["revoked_at_s"] is not None
    assert "secret" not in json.dumps(listed)


@live
async def test_a_rotated_key_goes_on_for_the_overlap_beside_its_successor(gateway: Gateway) -> None:
    desk = first(gateway)
    made = await desk.done("POST", "/keys", {"tenant": "alpha", "models": ["npc"], "networks": ["127.0.0.0/8"]})
    key = made["key"]["id"]
    turned = await desk.done("POST", f"/keys/{key}/rotate", {"overlap_s": 600})
    assert turned["key"]["models"] == ["npc"]
    assert turned["key"]["networks"] == ["127.0.0.0/8"]
    old = await desk.done("GET", f"/keys/{key}")
    assert old["successor"] == turned["key"]["id"]
    assert 590 < old["expires_at_s"] - turned["key"]["created_at_s"] <= 601
    for secret in (made["secret"], turned["secret"]):
        await settles(gateway, secret, 200, within_s=VANISHES_S)
    assert (await desk("POST", f"/keys/{key}/rotate", {})).status == 400
    await desk.done("POST", f"/keys/{turned['key']['id']}/rotate", {"overlap_s": 0})
    await settles(gateway, turned["secret"], 401, within_s=VANISHES_S)


@live
async def test_what_a_key_may_is_changed_field_by_field(gateway: Gateway) -> None:
    desk = first(gateway)
    made = await desk.done("POST", "/keys", {"tenant": "alpha", "name": "a", "expires_in_s": 900})
    key = made["key"]
    changed = await desk.done("PATCH", f"/keys/{key['id']}", {"name": "b", "networks": ["203.0.113.0/24"]})
    assert changed == key | {"name": "b", "networks": ["203.0.113.0/24"]}
    assert (await desk.done("PATCH", f"/keys/{key['id']}", {"expires_in_s": None}))["expires_at_s"] is None
    for wrong in (
        {"networks": ["x"]},
        {"models": ["nobody"]},
        {"policy": "none"},
        {"tenant": "beta"},
        {"name": "\u0000"},
    ):
        assert (await desk("PATCH", f"/keys/{key['id']}", wrong)).status == 400, wrong


@live
async def test_a_write_with_an_idempotency_key_is_done_once(gateway: Gateway) -> None:
    desk = first(gateway)
    await studio(desk, "once")
    made = await desk.done("POST", "/keys", {"tenant": "once"}, idempotency_key="k1")
    again = await desk("POST", "/keys", {"tenant": "once"}, idempotency_key="k1")
    assert again.headers["idempotency-replayed"] == "true"
    assert again.json == made | {"secret": None}
    assert len((await desk.done("GET", "/keys?tenant=once"))["keys"]) == 1
    assert (await desk("POST", "/keys", {"tenant": "once", "name": "x"}, idempotency_key="k1")).status == 422
    assert (await desk("POST", "/keys", {"tenant": "\u0001"}, idempotency_key="k2")).status == 400
    await desk.done("POST", "/keys", {"tenant": "once"}, idempotency_key="k2")  # nothing was done before
    assert (await desk("POST", "/keys", {"tenant": "once"}, idempotency_key="\u00e4")).status == 400
    other = await desk.token("operator")
    await other.done("POST", "/keys", {"tenant": "once"}, idempotency_key="k1")  # keys are each token's own


@live
async def test_every_change_is_written_down_with_who_and_what_was_before(gateway: Gateway) -> None:
    desk = first(gateway)
    await studio(desk, "books")
    operator = await desk.token("operator", "books")
    made = await operator.done("POST", "/keys", {"tenant": "books", "name": "a"})
    await operator.done("PATCH", f"/keys/{made['key']['id']}", {"name": "b"})
    await desk.done("PUT", "/pools/east/limit", {"limit": 2})
    await desk.done("PUT", "/pools/east/limit", {"limit": None})
    entries = (await operator.done("GET", "/audit"))["entries"]
    assert [entry["action"] for entry in entries] == [
        "key.change",
        "key.create",
        "token.create",
        "tenant.put",
        "organization.put",
    ]
    assert entries[0]["actor"].startswith("tok_")
    assert (entries[0]["before"]["name"], entries[0]["after"]["name"]) == ("a", "b")
    assert entries[4]["actor"] == "admin.token"
    assert made["secret"] not in json.dumps(entries)
    steered = (await desk.done("GET", "/audit?target=east"))["entries"]
    assert [entry["after"] for entry in steered] == [{"limit": None}, {"limit": 2}]
    assert (await operator.done("GET", "/audit?organization=alpha"))["entries"] == []
    page = await desk.done("GET", "/audit?limit=2")
    assert len(page["entries"]) == 2
    assert (await desk.done("GET", f"/audit?limit=2&before={page['before']}"))["entries"][0]["number"] == page[
        "before"
    ] - 1


@live
async def test_organizations_and_tenants_are_put_and_deleted(gateway: Gateway) -> None:
    desk = first(gateway)
    await studio(desk, "gone")
    made = await desk.done("POST", "/keys", {"tenant": "gone"})
    await settles(gateway, made["secret"], 200, within_s=VANISHES_S)
    assert (await desk("DELETE", "/organizations/gone")).status == 409
    assert (await desk("PUT", "/tenants/gone", {"organization": "nobody"})).status == 409
    assert (await desk("PUT", "/tenants/gone", {"plan": "nobody"})).status == 400
    await desk.done("DELETE", "/tenants/gone")
    await settles(gateway, made["secret"], 401, within_s=VANISHES_S)
    await desk.done("DELETE", "/organizations/gone")
    assert (await desk("DELETE", "/organizations/gone")).status == 404
    assert (await desk("GET", "/tenants/gone")).status == 404
