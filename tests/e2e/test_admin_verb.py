"""`spillway admin`: the admin API from a command line."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from spillway.cli.main import main
from tests.e2e.gateway import Gateway, running

pytestmark = pytest.mark.server


@pytest.fixture(scope="module")
def gateway() -> Iterator[Gateway]:
    with running(plans={"small": {"requests_per_minute": 60}}) as started:
        yield started


def test_an_organization_from_nothing_to_its_usage(gateway: Gateway, capsys: pytest.CaptureFixture[str]) -> None:
    def admin(*words: str) -> dict[str, object]:
        status = main(["admin", *words, "--config", str(gateway.folder / "spillway.yaml")])
        printed = capsys.readouterr()
        assert status == 0, printed.err
        return json.loads(printed.out) if printed.out else {}

    assert admin("put", "organizations/studio", "plan=small", "name=Studio")["plan"] == "small"
    tenant = admin("put", "tenants/obby", "organization=studio", 'quota={"in_flight": 4}')
    assert tenant["quota"] == {"in_flight": 4}
    made = admin("post", "keys", "tenant=obby", "--idempotency-key", "first")
    assert str(made["secret"]).startswith("sk-")
    assert admin("post", "keys", "tenant=obby", "--idempotency-key", "first")["secret"] is None
    keys = admin("get", "keys", "tenant=obby")["keys"]
    assert isinstance(keys, list)
    assert len(keys) == 1
    assert admin("get", "usage", "organization=studio")["hours"] == []
    assert admin("delete", f"keys/{keys[0]['id']}") == {}


def test_what_is_wrong_is_said(
    gateway: Gateway, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = ["--config", str(gateway.folder / "spillway.yaml")]
    assert main(["admin", "get", "tenants/nobody", *here]) == 1
    assert "404: There is no such tenant" in capsys.readouterr().err
    assert main(["admin", "put", "tenants/obby", "plan", *here]) == 2
    monkeypatch.chdir(tmp_path)
    assert main(["admin", "get", "pools"]) == 2
    assert "there is no token" in capsys.readouterr().err
    assert main(["admin", "get", "pools", *here, "--url", "http://127.0.0.1:9"]) == 1
    assert "does not answer" in capsys.readouterr().err
    assert main(["admin"]) == 0
    assert "put    tenants/{tenant}" in capsys.readouterr().out
