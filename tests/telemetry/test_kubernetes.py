"""The manifests: valid by the published schemas of the API, and right about what they start."""

from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from spillway import config

OPS = Path(__file__).resolve().parents[2] / "ops" / "kubernetes"
MANIFESTS: list[dict[str, Any]] = [
    manifest for path in sorted(OPS.glob("*.yaml")) for manifest in yaml.safe_load_all(path.read_text())
]
VERSIONS = ("1.30.0", kubernetes_validate.latest_version())
ENVIRONMENT = {"KEY_SECRET": "ab" * 32, "DATABASE_PASSWORD": "x", "LEDGER_PASSWORD": "y"}


def named(kind: str, name: str = "spillway") -> dict[str, Any]:
    return next(one for one in MANIFESTS if one["kind"] == kind and one["metadata"]["name"] == name)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("manifest", MANIFESTS, ids=lambda one: f"{one['kind']}-{one['metadata']['name']}")
def test_a_manifest_is_valid(manifest: dict[str, Any], version: str) -> None:
    kubernetes_validate.validate(manifest, version, strict=True)


def test_a_wrong_manifest_is_found() -> None:
    wrong = {**named("Deployment"), "spec": {**named("Deployment")["spec"], "replica": 3}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, VERSIONS[-1], strict=True)


def test_the_configuration_can_be_read_and_fits_the_deployment(tmp_path: Path) -> None:
    path = tmp_path / "spillway.yaml"
    path.write_text(named("ConfigMap")["data"]["spillway.yaml"])
    configuration = config.load(path, ENVIRONMENT)
    pod = named("Deployment")["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert {one["name"] for one in container["env"]} == set(ENVIRONMENT)
    secret = named("Secret")["stringData"]
    assert all(one["valueFrom"]["secretKeyRef"]["key"] in secret for one in container["env"])
    ports = {one["name"]: one["containerPort"] for one in container["ports"]}
    assert configuration.gateway.listen.endswith(f":{ports['api']}")
    assert configuration.gateway.admin.endswith(f":{ports['admin']}")
    slept_s = container["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert pod["terminationGracePeriodSeconds"] > slept_s + configuration.gateway.drain_s
    assert configuration.gateway.home in {one["mountPath"] for one in container["volumeMounts"]}
    assert named("Service", "spillway-admin")["metadata"]["name"] in configuration.gateway.admin_hosts
