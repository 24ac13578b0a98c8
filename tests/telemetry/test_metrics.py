"""Counting, summing over workers that come and go, and the text that Prometheus reads."""

import math
import re

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.telemetry.conftest import MakeRecord

from spillway.core.ids import EndpointUrl, ModelName, PoolName, RequestId
from spillway.core.outcome import Outcome
from spillway.core.priority import Priority
from spillway.gateway.ports import Observer
from spillway.telemetry.catalog import CATALOG, Kind
from spillway.telemetry.gateway_metrics import GatewayMetrics, PoolGauges, QueueGauge
from spillway.telemetry.metrics import Histogram, Labels, Registry, Report, Sample, Spread
from spillway.telemetry.observers import Observers
from spillway.telemetry.parent_metrics import ParentMetrics
from spillway.telemetry.prometheus import render
from spillway.telemetry.totals import Totals, merge
from spillway.traffic.events import Fault

POOL = PoolName("npc@east")
LINE = re.compile(r'([a-z_]+)(?:\{((?:[a-z]+="(?:[^"\\\n]|\\.)*",?)*)\})? (\S+)')


def parsed(text: str) -> dict[str, float]:
    """Every sample by its name and labels as they are written. Fails for a line that is not of the format."""
    found: dict[str, float] = {}
    for line in text.splitlines():
        if not line.startswith("#"):
            match = LINE.fullmatch(line)
            assert match, line
            name = line.rpartition(" ")[0]
            assert name not in found
            found[name] = float(match[3])
    return found


def shown(metrics: GatewayMetrics) -> dict[str, float]:
    return parsed(render(metrics.report()))


def test_a_request_is_counted_by_what_it_was_and_how_it_ended(make_record: MakeRecord) -> None:
    metrics = GatewayMetrics(Registry(), [ModelName("npc")])
    observer: Observer = Observers([metrics])
    observer.ended(make_record(cached_tokens=30), 0.0004)
    observer.ended(make_record(), 0.0004)
    observer.ended(
        make_record(pool=None, outcome=Outcome.REFUSED, prompt_tokens=0, completion_tokens=0, ttft_s=None), 2.0
    )
    observer.refused(Outcome.UNAUTHENTICATED)
    samples = shown(metrics)
    of = 'model="npc",pool="npc@east"'
    expected = {
        f'spillway_requests_total{{{of},priority="interactive",outcome="ok"}}': 2,
        'spillway_requests_total{model="npc",pool="none",priority="interactive",outcome="refused"}': 1,
        'spillway_requests_total{model="none",pool="none",priority="none",outcome="unauthenticated"}': 1,
        f'spillway_tokens_total{{{of},kind="prompt"}}': 200,
        f'spillway_tokens_total{{{of},kind="completion"}}': 40,
        f'spillway_tokens_total{{{of},kind="cached"}}': 30,
        f"spillway_cost_usd_total{{{of}}}": 0.002,
        f'spillway_ttft_seconds_bucket{{{of},le="0.2"}}': 0,
        f'spillway_ttft_seconds_bucket{{{of},le="0.3"}}': 2,
        f'spillway_ttft_seconds_bucket{{{of},le="+Inf"}}': 2,
        f"spillway_ttft_seconds_sum{{{of}}}": 0.5,
        f"spillway_ttft_seconds_count{{{of}}}": 2,
        f"spillway_tpot_seconds_count{{{of}}}": 2,
        'spillway_overhead_seconds_bucket{le="0.0005"}': 2,
        "spillway_overhead_seconds_count": 3,
    }
    assert {name: samples.get(name) for name in expected} == pytest.approx(expected)


def test_what_else_the_gateway_tells_is_counted(make_record: MakeRecord) -> None:
    metrics = GatewayMetrics(Registry(), [ModelName("npc")])
    observer: Observer = Observers([metrics])
    observer.spilled(ModelName("npc"), POOL, PoolName("hosted"), "saturated")
    observer.attempt_failed(RequestId("r"), POOL, EndpointUrl("http://e"), Fault.CONNECT, "refused")
    observer.breaker_changed(POOL, EndpointUrl("http://e"), "open")
    samples = shown(metrics)
    assert samples['spillway_spilled_total{model="npc",from="npc@east",to="hosted",reason="saturated"}'] == 1
    assert samples['spillway_attempt_failures_total{pool="npc@east",fault="connect"}'] == 1
    assert samples['spillway_breaker_changes_total{pool="npc@east",state="open"}'] == 1


def test_clients_cannot_make_labels(make_record: MakeRecord) -> None:
    metrics = GatewayMetrics(Registry(), [ModelName("npc")])
    for number in range(50):
        metrics.ended(make_record(model=f"made-up-{number}", outcome=Outcome.MODEL_NOT_FOUND, pool=None), 0.0)
        metrics.spilled(ModelName(f"made-up-{number}"), POOL, POOL, "saturated")
    text = render(metrics.report())
    assert "made-up" not in text
    assert (
        parsed(text)[
            'spillway_requests_total{model="other",pool="none",priority="interactive",outcome="model_not_found"}'
        ]
        == 50
    )


def test_models_that_come_and_go_keep_what_was_counted(make_record: MakeRecord) -> None:
    metrics = GatewayMetrics(Registry(), [ModelName("npc")])
    metrics.ended(make_record(), 0.0)
    metrics.configured([ModelName("quest")])
    metrics.ended(make_record(), 0.0)
    metrics.ended(make_record(model="quest"), 0.0)
    metrics.configured([ModelName("npc"), ModelName("quest")])
    metrics.ended(make_record(), 0.0)
    samples = shown(metrics)
    tail = 'pool="npc@east",priority="interactive",outcome="ok"}'
    assert samples[f'spillway_requests_total{{model="npc",{tail}'] == 2
    assert samples[f'spillway_requests_total{{model="other",{tail}'] == 1
    assert samples[f'spillway_requests_total{{model="quest",{tail}'] == 1


def test_series_are_bounded_and_the_rest_is_counted_as_other() -> None:
    registry = Registry(max_series=3)
    for number in range(10):
        registry.counter("spillway_spilled_total", "m", f"from-{number}", "to", "saturated").add()
    samples = parsed(render(registry.report()))
    spilled = {name: value for name, value in samples.items() if name.startswith("spillway_spilled_total")}
    assert len(spilled) == 4
    assert sum(spilled.values()) == 10
    assert spilled['spillway_spilled_total{model="other",from="other",to="other",reason="other"}'] == 7
    assert samples['spillway_metrics_overflow_total{metric="spillway_spilled_total"}'] == 7


def test_a_metric_is_used_as_the_catalogue_says() -> None:
    registry = Registry()
    with pytest.raises(ValueError, match="labels"):
        registry.counter("spillway_spilled_total", "only one")
    with pytest.raises(ValueError, match="gauge"):
        registry.counter("spillway_inflight", "pool")
    with pytest.raises(KeyError):
        registry.gauge("spillway_unheard_of")


def test_gauges_show_what_is_there_now() -> None:
    metrics = GatewayMetrics(Registry(), [])
    metrics.state(
        [
            PoolGauges(POOL, in_flight=3, limit=8, load_index=0.5, endpoints_open=1),
            PoolGauges(PoolName("old"), 1, 1, 1.0, 0),
        ],
        [QueueGauge(ModelName("npc"), Priority.BATCH, 7)],
        {ModelName("npc"): True},
    )
    metrics.state(
        [PoolGauges(POOL, in_flight=4, limit=8, load_index=0.75, endpoints_open=0, spill_share=0.25, foreign=2.0)],
        [],
        {ModelName("npc"): False},
    )
    metrics.decisions({"owed": 3})
    metrics.spool(unsettled=5, lost=2, full=True)
    samples = shown(metrics)
    assert samples == {
        'spillway_inflight{pool="npc@east"}': 4,
        'spillway_limit{pool="npc@east"}': 8,
        'spillway_load_index{pool="npc@east"}': 0.75,
        'spillway_endpoints_open{pool="npc@east"}': 0,
        'spillway_spill_share{pool="npc@east"}': 0.25,
        'spillway_foreign{pool="npc@east"}': 2.0,
        'spillway_panic{model="npc"}': 0,
        'spillway_decisions_total{kind="owed"}': 3,
        "spillway_usage_unsettled": 5,
        "spillway_spool_full": 1,
        "spillway_usage_lost_total": 2,
        **{name: value for name, value in samples.items() if name.startswith("spillway_overhead_seconds")},
    }


@pytest.mark.parametrize("value", ['say "hi"', "back\\slash", "two\nlines", "ünïcode", ""])
def test_label_values_are_escaped(value: str) -> None:
    registry = Registry()
    registry.counter("spillway_cost_usd_total", value, "p").add(0.5)
    escaped = value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
    assert f'spillway_cost_usd_total{{model="{escaped}",pool="p"}} 0.5' in render(registry.report()).split("\n")
    parsed(render(registry.report()))


def test_every_metric_has_help_and_type_even_without_a_series() -> None:
    text = render(Report())
    for spec in CATALOG.values():
        assert f"# HELP {spec.name} " in text
        assert f"# TYPE {spec.name} {spec.kind.value}\n" in text


def test_the_catalogue_follows_the_rules_of_prometheus() -> None:
    for spec in CATALOG.values():
        assert (spec.kind is Kind.COUNTER) == spec.name.endswith("_total")
        assert bool(spec.buckets) == (spec.kind is Kind.HISTOGRAM)
        assert list(spec.buckets) == sorted(set(spec.buckets))
        assert "le" not in spec.labels


def test_numbers_are_written_so_that_they_read_back() -> None:
    registry = Registry()
    counter = registry.counter("spillway_cost_usd_total", "m", "p")
    for value in (0.1 + 0.2, 1e-9, 12345678901234.0, 2.0**60, 3):
        counter.value = value
        assert parsed(render(registry.report()))['spillway_cost_usd_total{model="m",pool="p"}'] == value


@given(st.lists(st.floats(0, 100), max_size=50))
@settings(deadline=None)
def test_a_histogram_counts_everything_in_its_right_bucket(values: list[float]) -> None:
    bounds = (0.5, 1.0, 10.0)
    histogram = Histogram(bounds)
    for value in values:
        histogram.observe(value)
    upper = (*bounds, math.inf)
    for index, count in enumerate(histogram.counts):
        low = bounds[index - 1] if index else -math.inf
        assert count == sum(1 for value in values if low < value <= upper[index])


COUNTS: st.SearchStrategy[dict[Labels, int]] = st.dictionaries(st.tuples(st.sampled_from("abc")), st.integers(0, 9))


def report_of(counts: dict[Labels, int]) -> Report:
    return Report(
        counters={"spillway_metrics_overflow_total": tuple(Sample(labels, n) for labels, n in counts.items())},
        gauges={
            "spillway_inflight": tuple(Sample(labels, n) for labels, n in counts.items()),
            "spillway_load_index": tuple(Sample(labels, n) for labels, n in counts.items()),
        },
        histograms={
            "spillway_overhead_seconds": (Spread((), (sum(counts.values()),) + (0,) * 15, float(len(counts))),)
        },
    )


def value_of(samples: tuple[Sample, ...], labels: Labels) -> float | None:
    return next((sample.value for sample in samples if sample.labels == labels), None)


@given(st.lists(COUNTS, min_size=1, max_size=5))
@settings(deadline=None)
def test_totals_are_the_sum_of_all_that_ever_reported(workers: list[dict[Labels, int]]) -> None:
    totals = Totals()
    for number, counts in enumerate(workers):
        totals.add(f"w{number}", report_of({}))
        travelled = msgspec.msgpack.decode(msgspec.msgpack.encode(report_of(counts)), type=Report)
        totals.add(f"w{number}", travelled)  # replaces the one before
        if number % 2:
            totals.retire(f"w{number}")
            totals.add(f"w{number}", travelled)  # comes late
    total = totals.total()
    live = workers[::2]
    for letter in "abc":
        labels = (letter,)
        holders = [counts[labels] for counts in workers if labels in counts]
        living = [counts[labels] for counts in live if labels in counts]
        assert value_of(total.counters.get("spillway_metrics_overflow_total", ()), labels) == (
            sum(holders) if holders else None
        )
        assert value_of(total.gauges.get("spillway_inflight", ()), labels) == (sum(living) if living else None)
        mean = value_of(total.gauges.get("spillway_load_index", ()), labels)
        assert mean == (pytest.approx(sum(living) / len(living)) if living else None)
    (spread,) = total.histograms["spillway_overhead_seconds"]
    assert spread.counts[0] == sum(sum(counts.values()) for counts in workers)


def test_the_parents_own_report_is_part_of_the_total() -> None:
    parent = ParentMetrics()
    parent.worker_died()
    own = parent.report(
        workers=2, ingested=10, known=1, corrupt=0, spool_bytes=77, store_up=True, ledger_up=False, ledger_failures=3
    )
    totals = Totals()
    totals.add("w1", report_of({("a",): 3}))
    samples = parsed(render(totals.total(own)))
    assert samples["spillway_workers"] == 2
    assert samples["spillway_worker_deaths_total"] == 1
    assert samples["spillway_usage_ingested_total"] == 10
    assert samples["spillway_spool_bytes"] == 77
    assert samples["spillway_store_up"] == 1
    assert samples["spillway_ledger_up"] == 0
    assert samples["spillway_ledger_failures_total"] == 3
    assert samples['spillway_inflight{pool="a"}'] == 3


@given(COUNTS, COUNTS, COUNTS)
@settings(deadline=None)
def test_counters_add_up_in_any_order(one: dict[Labels, int], two: dict[Labels, int], three: dict[Labels, int]) -> None:
    reports = [report_of(one), report_of(two), report_of(three)]
    together = merge(reports).counters
    stepwise = merge([merge(reports[:2]), reports[2]]).counters
    assert {name: set(samples) for name, samples in together.items()} == {
        name: set(samples) for name, samples in stepwise.items()
    }
