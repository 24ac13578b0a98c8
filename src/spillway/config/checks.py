"""Mistakes that types do not show: names that nothing has, addresses that are none, keys that go together or exclude each other.

Of a part that is already known to be wrong nothing more is said.
"""

import ipaddress
from collections.abc import Mapping
from pathlib import Path as FilePath
from urllib.parse import urlsplit

from spillway.config.configuration import Configuration
from spillway.config.document import Document
from spillway.config.environment import proxy_for
from spillway.config.problems import Path
from spillway.config.settings import Model, Organization, Pool, Tenant
from spillway.config.sharing import wrong_with_shared
from spillway.core.errors import ConfigError
from spillway.core.ids import ModelName, PoolName
from spillway.net.proxy import parse_proxy
from spillway.quota.rules import Quota
from spillway.store.minting import PASS_PREFIX
from spillway.store.objects import check_objects
from spillway.store.opening import sqlite_path
from spillway.traffic.validation import problems as fleet_problems


def check(configuration: Configuration, document: Document, environ: Mapping[str, str], folder: FilePath) -> None:
    """Reports to the document. `folder`: what relative file names are relative to."""
    checks = _Checks(configuration, document, environ, folder)
    checks.gateway()
    for name, pool in configuration.pools.items():
        checks.pool(name, pool)
    for name, model in configuration.models.items():
        checks.model(name, model)
        checks.safety(name, model)
    checks.public_names()
    checks.keys()
    checks.plans()
    checks.tenants()
    if not document.problems:
        for sentence in fleet_problems(configuration.fleet()):
            path = _place_of(sentence, configuration)
            document.report(path, sentence, at_key=path[0] in ("pools", "models", "policies", "priorities"))


_SECTION = {"priority": "priorities", "policy": "policies"}


class _Checks:
    def __init__(
        self, configuration: Configuration, document: Document, environ: Mapping[str, str], folder: FilePath
    ) -> None:
        self._configuration = configuration
        self._document = document
        self._environ = environ
        self._folder = folder

    def gateway(self) -> None:
        gateway, store, shared = self._configuration.gateway, self._configuration.store, self._configuration.shared
        for field, address in (("listen", gateway.listen), ("admin", gateway.admin)):
            if int(address.rpartition(":")[2]) > 65535:
                self._report(("gateway", field), "a port is at most 65535")
        if gateway.tls is not None:
            self._file(("gateway", "tls", "cert"), gateway.tls.cert)
            self._file(("gateway", "tls", "key"), gateway.tls.key)
        try:
            sqlite_path(store.url, FilePath(gateway.home))
        except ConfigError as error:
            self._report(("store", "url"), str(error))
        try:
            check_objects(store.objects)
        except ConfigError as error:
            self._report(("store", "objects", "url"), str(error))
        for index, url in enumerate(self._configuration.batch.gateways):
            self._url(("batch", "gateways", index), url)
        trace_url = self._configuration.telemetry.trace.otlp_url
        if trace_url is not None:
            self._url(("telemetry", "trace", "otlp_url"), trace_url)
        if gateway.gauges.path and not gateway.gauges.path.startswith("/"):
            self._report(("gateway", "gauges", "path"), "a path begins with /")
        self._networks(("gateway", "trusted_proxies"), gateway.trusted_proxies)
        if gateway.default_plan is not None:
            self._plan(("gateway", "default_plan"), gateway.default_plan)
        for field, message in wrong_with_shared(shared):
            self._report(("shared", *field.split(".")), message)

    def pool(self, name: PoolName, pool: Pool) -> None:
        at: Path = ("pools", name)
        if self._document.is_wrong(at):
            return
        if (pool.cluster is None) == (pool.provider is None):
            self._report(at, "a pool has either a cluster or a provider", at_key=True)
            return
        if pool.cluster is not None:
            self._cluster_pool(at, pool)
        else:
            self._hosted_pool(at, pool)
        if pool.ca_file is not None:
            self._file((*at, "ca_file"), pool.ca_file)
        if pool.proxy is not None and pool.proxy != "direct":
            self._proxy((*at, "proxy"), pool.proxy)
        if pool.probe_path and not pool.probe_path.startswith("/"):
            self._report((*at, "probe_path"), "a path begins with /")

    def _cluster_pool(self, at: Path, pool: Pool) -> None:
        if pool.cluster not in self._configuration.clusters:
            self._unknown((*at, "cluster"), "cluster", str(pool.cluster))
        if pool.base_url is not None:
            self._report((*at, "base_url"), "belongs to a hosted pool; a pool on a cluster has endpoints", at_key=True)
        if not pool.endpoints:
            self._report((*at, "endpoints"), "a pool on a cluster needs at least one endpoint")
        for index, url in enumerate(pool.endpoints):
            self._url((*at, "endpoints", index), url)
            if url.rstrip("/") in pool.urls[:index]:
                self._report((*at, "endpoints", index), "is there twice")

    def _hosted_pool(self, at: Path, pool: Pool) -> None:
        if pool.endpoints:
            self._report((*at, "endpoints"), "belong to a pool on a cluster; a hosted pool has a base_url", at_key=True)
        if pool.base_url is None:
            self._report((*at, "base_url"), "is missing: a hosted pool needs it")
        elif self._url((*at, "base_url"), pool.base_url) and pool.proxy is None:
            proxy = proxy_for(pool.base_url, self._environ)
            if proxy is not None:
                self._proxy((*at, "base_url"), proxy, "HTTPS_PROXY in the environment: ")

    def model(self, name: ModelName, model: Model) -> None:
        at: Path = ("models", name)
        if self._document.is_wrong((*at, "tiers")):
            return
        if not model.tiers:
            self._report((*at, "tiers"), "a model needs at least one tier")
        seen: set[PoolName] = set()
        for place, tier in enumerate(model.tiers):
            if not tier:
                self._report((*at, "tiers", place), "a tier needs at least one pool")
            for index, pool in enumerate(tier):
                here = (*at, "tiers", place, index)
                if self._document.find(("pools", pool)) is None:
                    self._unknown(here, "pool", pool)
                elif pool in seen:
                    self._report(here, f"the pool '{pool}' is there twice")
                seen.add(pool)

    def safety(self, name: ModelName, model: Model) -> None:
        rule = model.safety
        if rule is None:
            return
        at: Path = ("models", name, "safety", "model")
        checker = self._configuration.models.get(self._configuration.public_names().get(rule.model, ModelName("")))
        if checker is None:
            self._unknown(at, "model", rule.model)
        elif checker.safety is not None:
            self._report(at, f"the model '{rule.model}' is checked itself: a classifier is not")

    def public_names(self) -> None:
        owners: dict[str, str] = {name: name for name in self._configuration.models}
        for name, model in self._configuration.models.items():
            for index, alias in enumerate(model.aliases):
                if alias in owners:
                    self._report(
                        ("models", name, "aliases", index), f"the name '{alias}' already means '{owners[alias]}'"
                    )
                owners.setdefault(alias, name)

    def keys(self) -> None:
        names = self._configuration.public_names()
        seen: set[str] = set()
        # of wrong keys nothing is here, so the places count only where all are right
        if self._document.is_wrong(("keys",)):
            return
        for index, key in enumerate(self._configuration.keys):
            if key.secret in seen:
                self._report(("keys", index, "secret"), "another key has the same secret")
            seen.add(key.secret)
            if key.secret.startswith(PASS_PREFIX.decode()):
                self._report(("keys", index, "secret"), "a secret does not begin as the passes of batch workers do")
            for place, model in enumerate(key.models or ()):
                if model not in names and self._document.find(("models", model)) is None:
                    self._unknown(("keys", index, "models", place), "model", model)
            if key.policy is not None:
                self._policy(("keys", index, "policy"), key.policy)
            self._networks(("keys", index, "networks"), key.networks)

    def plans(self) -> None:
        for name, quota in self._configuration.plans.items():
            self._quota(("plans", name), quota)

    def tenants(self) -> None:
        configuration = self._configuration
        for name, organization in configuration.organizations.items():
            self._terms(("organizations", name), organization)
            if organization.quota is not None and organization.quota.each_user is not None:
                message = "bounds the end users of one tenant; give it to the organization's tenants"
                self._report(("organizations", name, "quota", "each_user"), message, at_key=True)
        for name, tenant in configuration.tenants.items():
            self._terms(("tenants", name), tenant)
            if tenant.policy is not None:
                self._policy(("tenants", name, "policy"), tenant.policy)
            if tenant.organization is not None and self._document.find(("organizations", tenant.organization)) is None:
                self._unknown(("tenants", name, "organization"), "organization", tenant.organization)

    def _terms(self, at: Path, terms: Organization | Tenant) -> None:
        if terms.plan is not None:
            self._plan((*at, "plan"), terms.plan)
        if terms.quota is not None:
            self._quota((*at, "quota"), terms.quota)

    def _quota(self, at: Path, quota: Quota) -> None:
        names = self._configuration.public_names()
        for model in quota.models:
            if self._document.find(("models", model)) is not None:
                continue
            here = (*at, "models", model)
            if model in names:
                self._report(here, f"'{model}' is another name of '{names[model]}': use that", at_key=True)
            else:
                self._unknown(here, "model", model)

    def _plan(self, path: Path, plan: str) -> None:
        if self._document.find(("plans", plan)) is None:
            self._unknown(path, "plan", plan)

    def _policy(self, path: Path, policy: str) -> None:
        if self._document.find(("policies", policy)) is None:
            self._unknown(path, "policy", policy, "policies")

    def _networks(self, path: Path, networks: tuple[str, ...]) -> None:
        if self._document.is_wrong(path):  # of wrong ones nothing is here: the places would not be right
            return
        for index, network in enumerate(networks):
            try:
                ipaddress.ip_network(network)
            except ValueError as error:
                self._report((*path, index), f"no network: {error}")

    def _report(self, path: Path, message: str, *, at_key: bool = False) -> None:
        self._document.report(path, message, at_key=at_key)

    def _unknown(self, path: Path, noun: str, name: str, section: str = "") -> None:
        plural = section or f"{noun}s"
        node = self._document.find((plural,))
        known = sorted(node.value) if node is not None and isinstance(node.value, dict) else []
        choice = (
            f"; there {'are' if len(known) > 1 else 'is'} {', '.join(known)}" if known else f"; there are no {plural}"
        )
        self._report(path, f"there is no {noun} '{name}'{choice}")

    def _file(self, path: Path, name: str) -> None:
        if not (self._folder / name).is_file():
            self._report(path, f"there is no file '{name}' (relative to the configuration file)")

    def _proxy(self, path: Path, proxy: str, source: str = "") -> None:
        try:
            parse_proxy(proxy)
        except (ConfigError, ValueError) as error:
            self._report(path, f"{source}{error}")

    def _url(self, path: Path, url: str) -> bool:
        """Whether it is a URL that can be used. What is wrong with it is said without showing it: it may hold a password."""
        message = wrong_with_url(url)
        if message:
            self._report(path, message)
        return not message


def wrong_with_url(url: str) -> str:
    """Why requests cannot be sent to a URL; empty: they can."""
    expected = "expected http://HOST[:PORT][/PATH] or https://HOST[:PORT][/PATH]"
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return expected
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
        return expected
    if not (url.isascii() and url.isprintable()) or " " in url:
        return f"{expected}, in visible ASCII characters"
    if parts.username is not None or parts.password is not None:
        return "a URL must not hold a user or a password; use api_key"
    return f"{expected}, without ? and #" if "?" in url or "#" in url else ""


def _place_of(sentence: str, configuration: Configuration) -> Path:
    """Where the part stands that a sentence of the brain's own validation is about."""
    for section, names in (
        ("pool", configuration.pools),
        ("model", configuration.models),
        ("policy", configuration.policies),
        ("priority", ("realtime", "interactive", "batch")),
    ):
        for name in names:
            if sentence.startswith(f"{section} {str(name)!r}"):
                return (_SECTION.get(section, f"{section}s"), str(name))
    return tuple(sentence.split(" ", 1)[0].split("."))
