"""What goes wrong, at its time: endpoints that die, stall or slow down, networks that are cut, limits that an operator sets."""

from typing import assert_never

from spillway.core.clock import Seconds
from spillway.planner.engine import NEVER
from spillway.planner.scenario import Happening, Incident
from spillway.planner.simulation import Gateway, Simulation
from spillway.planner.site import Site
from spillway.traffic.events import Fault, LimitSet, Probed
from spillway.traffic.fleet import Accounting

PROBED_AFTER_S: Seconds = (
    120.0  # an incident's end: for so long its endpoints are probed; before one, probes are no news
)


def plan_incidents(simulation: Simulation) -> None:
    """Each begins and ends at its time; from its beginning on its endpoints are probed."""
    for incident in simulation.scenario.incidents:
        simulation.at(incident.from_s, _begin, simulation, incident)
        simulation.at(incident.until_s, _end, simulation, incident)
        if incident.happening in (Happening.DOWN, Happening.STALL):
            until_s = incident.until_s + PROBED_AFTER_S
            for site in _struck(simulation, incident):
                simulation.at(incident.from_s, _probe, simulation, (site, until_s))


def _begin(simulation: Simulation, incident: Incident) -> None:
    now = simulation.now
    match incident.happening:
        case Happening.LIMIT:
            _set_limit(simulation, incident, int(incident.factor))
        case Happening.DOWN:
            for site in _struck(simulation, incident):
                site.down = True
                for job in site.engine.fail(now):
                    if not job.ended:
                        simulation.fails(site, job, Fault.RESET)
                simulation.plan(site)
        case Happening.STALL if incident.regions:
            for site in _struck(simulation, incident):
                site.dark = site.dark | frozenset(incident.regions)
                _be_patient(simulation, site, frozenset(incident.regions))
        case Happening.STALL:
            for site in _struck(simulation, incident):
                site.stalled = True
                site.pace(now)
                simulation.plan(site)
                _be_patient(simulation, site, None)
        case Happening.SLOW:
            for site in _struck(simulation, incident):
                site.factor = incident.factor
                site.pace(now)
                simulation.plan(site)
        case _:
            assert_never(incident.happening)


def _end(simulation: Simulation, incident: Incident) -> None:
    now = simulation.now
    match incident.happening:
        case Happening.LIMIT:
            _set_limit(simulation, incident, None)
        case Happening.DOWN:
            start_up_s = simulation.scenario.engines[incident.pool].start_up_s
            for site in _struck(simulation, incident):
                simulation.at(now + start_up_s, _serves_again, site)
        case Happening.STALL if incident.regions:
            for site in _struck(simulation, incident):
                site.dark = site.dark - frozenset(incident.regions)
                mail, site.mail = site.mail, []
                for run, job in mail:
                    simulation.says(site, job, run)
        case Happening.STALL:
            for site in _struck(simulation, incident):
                site.stalled = False
                site.pace(now)
                simulation.plan(site)
        case Happening.SLOW:
            for site in _struck(simulation, incident):
                site.factor = 1.0
                site.pace(now)
                simulation.plan(site)
        case _:
            assert_never(incident.happening)


def _serves_again(site: Site, _: object) -> None:
    site.down = False


def _be_patient(simulation: Simulation, site: Site, regions: frozenset[str] | None) -> None:
    """Those who wait there will have waited long enough at some time: for a first token, or for the next one."""
    patience = simulation.scenario.patience
    for gateway in simulation.gateways:
        if regions is not None and gateway.region not in regions:
            continue
        for call in list(gateway.calls.values()):
            job = simulation.job_of(call)
            if job is not None and job.pool == site.pool and job.url == site.url:
                due = (
                    simulation.now + patience.between_chunks_s
                    if job.first_at
                    else job.sent_at + patience.first_content_s
                )
                simulation.at(max(due, simulation.now), simulation.too_late, site, job)


def _struck(simulation: Simulation, incident: Incident) -> list[Site]:
    return [
        site
        for (pool, url), site in simulation.sites.items()
        if pool == incident.pool and incident.endpoint in (None, url)
    ]


def _set_limit(simulation: Simulation, incident: Incident, limit: int | None) -> None:
    """An operator speaks to all gateways; of slots that are theirs alone each sets its part."""
    members = [gateway for gateway in simulation.gateways if incident.pool in gateway.one_way_s]
    for place, gateway in enumerate(members):
        spec = simulation.scenario.gateways[gateway.number].fleet.pools[incident.pool]
        part = limit
        if limit is not None and spec.accounting is Accounting.EXACT:
            part = limit // len(members) + (limit % len(members) if place == 0 else 0)
        simulation.tell(gateway, LimitSet(incident.pool, part))


def _probe(simulation: Simulation, watched: tuple[Site, Seconds]) -> None:
    site, until_s = watched
    for gateway in simulation.gateways:
        if site.pool in gateway.one_way_s:
            _probed(simulation, gateway, site)
    again = simulation.now + simulation.scenario.probe_period_s
    if again < min(until_s, NEVER) and simulation.more:
        simulation.at(again, _probe, simulation, watched)


def _probed(simulation: Simulation, gateway: Gateway, site: Site) -> None:
    simulation.tell(gateway, Probed(site.url, site.answers(gateway.region)))
