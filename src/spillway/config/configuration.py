"""A configuration that was read and found right, and what the other packages want to know of it."""

import msgspec

from spillway.backends.settings import UpstreamSpec
from spillway.batch.settings import Settings as BatchSettings
from spillway.config.limits import auto_limit
from spillway.config.settings import (
    Cluster,
    ClusterKey,
    Gateway,
    Key,
    Model,
    ModelKey,
    Organization,
    OrganizationKey,
    PlanKey,
    PolicyKey,
    Pool,
    PoolKey,
    Priorities,
    PriorityRule,
    Shared,
    Tenant,
    TenantKey,
    WorkWeights,
)
from spillway.core.ids import ModelName, PoolName, VersionName
from spillway.core.priority import Priority
from spillway.core.usage import Price
from spillway.gateway.settings import ModelTimeouts, SafetyRule
from spillway.quota.rules import Quota
from spillway.store.settings import Settings as StoreSettings
from spillway.store.terms import OrganizationTerms, TenantTerms, Terms
from spillway.telemetry.settings import Settings as TelemetrySettings
from spillway.traffic.fleet import (
    BreakerRules,
    FairnessRules,
    Fleet,
    ModelSpec,
    PoolSpec,
    PrioritySpec,
    RetryRules,
    SpillPolicy,
    SpillRules,
    WaitingRoom,
    default_priorities,
)


class Configuration(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything that `spillway serve` is told: its own ports and bounds, the clusters and providers, the models and the keys."""

    gateway: Gateway = Gateway()
    store: StoreSettings = StoreSettings()
    shared: Shared = Shared()
    telemetry: TelemetrySettings = TelemetrySettings()
    batch: BatchSettings = BatchSettings()
    clusters: dict[ClusterKey, Cluster] = {}
    pools: dict[PoolKey, Pool] = {}
    models: dict[ModelKey, Model] = {}
    keys: tuple[Key, ...] = ()
    priorities: Priorities = Priorities()
    waiting_room: WaitingRoom = WaitingRoom()
    breaker: BreakerRules = BreakerRules()
    retries: RetryRules = RetryRules()
    policies: dict[PolicyKey, SpillPolicy] = {}
    plans: dict[PlanKey, Quota] = {}
    organizations: dict[OrganizationKey, Organization] = {}
    tenants: dict[TenantKey, Tenant] = {}
    fairness: WorkWeights = WorkWeights()
    spill: SpillRules = SpillRules()

    def fleet(self) -> Fleet:
        """What the brain knows of the world."""
        return Fleet(
            pools={name: self._pool_spec(name, pool) for name, pool in self.pools.items()},
            models={name: ModelSpec(name, model.tiers, model.slo, model.policy) for name, model in self.models.items()},
            priorities=self._priorities(),
            waiting_room=self.waiting_room,
            breaker=self.breaker,
            retries=self.retries,
            policies=self.policies,
            fairness=self._fairness(),
            spill=self.spill,
        )

    def upstreams(self) -> list[UpstreamSpec]:
        """What the backends know of each pool."""
        return [
            UpstreamSpec(
                pool=name,
                endpoints=pool.urls,
                model=pool.model,
                version=pool.version or VersionName(pool.model),
                price=pool.price,
                api_key=pool.api_key,
                ca_file=pool.ca_file,
                proxy=pool.proxy,
                probe_path=pool.probe_path,
                hosted=pool.cluster is None,
                peer=pool.peer,
            )
            for name, pool in self.pools.items()
        ]

    def terms(self) -> Terms:
        """What is said of tenants and organizations."""
        return Terms(
            tenants={
                name: TenantTerms(one.plan, one.quota, one.suspended, one.organization, one.policy, one.safety)
                for name, one in self.tenants.items()
            },
            organizations={
                name: OrganizationTerms(one.plan, one.quota, one.suspended) for name, one in self.organizations.items()
            },
            plans=self.plans,
            default_plan=self.gateway.default_plan,
        )

    def dearest(self) -> dict[ModelName, Price]:
        """The most that a token may cost, of each model: its pools' highest prices."""
        return {
            name: Price(
                max(self.pools[pool].price.input_usd_per_mtok for tier in model.tiers for pool in tier),
                max(self.pools[pool].price.output_usd_per_mtok for tier in model.tiers for pool in tier),
            )
            for name, model in self.models.items()
        }

    def timeouts(self) -> dict[ModelName, ModelTimeouts]:
        """The models that have time-outs of their own."""
        return {name: model.timeouts for name, model in self.models.items() if model.timeouts != ModelTimeouts()}

    def continuing(self) -> frozenset[str]:
        """Public names of the models of which every pool that batch may use goes on with an unfinished answer."""
        return frozenset(
            public
            for public, name in self.public_names().items()
            if all(pool.continuation for pool in self._idle_pools(name))
        )

    def _idle_pools(self, name: ModelName) -> list[Pool]:
        pools = [self.pools[pool] for tier in self.models[name].tiers for pool in tier]
        return [pool for pool in pools if pool.cluster is not None] or pools

    def safety_rules(self) -> dict[ModelName, SafetyRule]:
        """Of the models whose requests are checked."""
        return {name: model.safety for name, model in self.models.items() if model.safety is not None}

    def models_with_choice(self) -> frozenset[ModelName]:
        """Those of which a request can go to one of several places at a time: there it matters who knows its beginning."""
        return frozenset(
            name
            for name, model in self.models.items()
            if any(len(tier) > 1 or any(len(self.pools[pool].urls) > 1 for pool in tier) for tier in model.tiers)
        )

    def public_names(self) -> dict[str, ModelName]:
        """Each name that clients may use, aliases included, and the model it stands for."""
        names: dict[str, ModelName] = {}
        for name, model in self.models.items():
            names |= dict.fromkeys((name, *model.aliases), name)
        return names

    def _pool_spec(self, name: PoolName, pool: Pool) -> PoolSpec:
        cluster = None if pool.cluster is None else self.clusters[pool.cluster]
        slos = [model.slo for model in self.models.values() if any(name in tier for tier in model.tiers)]
        return PoolSpec(
            name=name,
            cluster=pool.cluster,
            endpoints=pool.urls,
            limit=auto_limit(pool.capacity, slos) if pool.limit == "auto" else pool.limit,
            rtt_s=0.0 if cluster is None else cluster.rtt_ms / 1000.0,
            capacity=pool.capacity,
            price=pool.price,
            residency=(*pool.residency, *(() if cluster is None else cluster.residency)),
            accounting=pool.accounting,
            own_share=pool.own_share,
            adaptive=pool.limit == "auto",
        )

    def _fairness(self) -> FairnessRules:
        """Weights of 1 are those of everybody: they need no entry."""
        return FairnessRules(
            organizations={name: one.weight for name, one in self.organizations.items() if one.weight != 1.0},
            tenants={name: one.weight for name, one in self.tenants.items() if one.weight != 1.0},
            input_weight=self.fairness.input_weight,
            output_weight=self.fairness.output_weight,
        )

    def _priorities(self) -> dict[Priority, PrioritySpec]:
        rules: dict[str, PriorityRule] = msgspec.structs.asdict(self.priorities)
        return {priority: _ruled(spec, rules[priority]) for priority, spec in default_priorities().items()}


def _ruled(spec: PrioritySpec, rule: PriorityRule) -> PrioritySpec:
    given = {name: value for name, value in msgspec.structs.asdict(rule).items() if value is not None}
    return msgspec.structs.replace(spec, **given)
