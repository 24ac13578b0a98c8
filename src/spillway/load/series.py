"""From the records of a run to what is plotted: counts and percentiles over time, distributions. Pure numpy."""

from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np

from spillway.load.record import Measure, RequestRecord

TIME_BINS = 60
CDF_POINTS = 200
MAX_LAYERS = 9  # and one more for all the rest

Points = tuple[list[float], list[float]]


def time_edges(records: Sequence[RequestRecord]) -> list[float]:
    """Edges of TIME_BINS equal bins from the start of the run to its last event; a run without events has one second."""
    ends = [record.last_s if record.last_s is not None else record.intended_s for record in records]
    return np.linspace(0.0, max([*ends, 1.0]), TIME_BINS + 1).tolist()


def rates_by(
    records: Sequence[RequestRecord], edges: Sequence[float], name_of: Callable[[RequestRecord], str]
) -> list[tuple[str, list[float]]]:
    """Ended requests per second and bin, a layer for each name, the most frequent first. The last value of each layer
    closes its last bin."""
    ended = [(name_of(record), record.last_s) for record in records if record.last_s is not None]
    ranked = [name for name, _ in Counter(name for name, _ in ended).most_common()]
    named = ranked[:MAX_LAYERS]
    groups = {name: [at_s for of, at_s in ended if of == name] for name in named}
    if rest := [at_s for of, at_s in ended if of not in groups]:
        groups["all others"] = rest
    width_s = edges[1] - edges[0]
    layers: list[tuple[str, list[float]]] = []
    for name, times in groups.items():
        per_bin = (np.histogram(times, edges)[0] / width_s).tolist()
        layers.append((name, [*per_bin, per_bin[-1]]))
    return layers


def quantile_over_time(
    records: Sequence[RequestRecord],
    edges: Sequence[float],
    share: float,
    measure: Measure,
) -> Points:
    """Middle of the bin and the quantile in ms of the requests that were intended in it; bins without any are left out."""
    inside: list[list[float]] = [[] for _ in range(len(edges) - 1)]
    for record in records:
        if record.error is None and (seconds := measure(record)) is not None:
            at = int(np.searchsorted(edges, record.intended_s, side="right")) - 1
            inside[min(max(at, 0), len(inside) - 1)].append(seconds)
    filled = [index for index, values in enumerate(inside) if values]
    middles = [(edges[index] + edges[index + 1]) / 2 for index in filled]
    return middles, [float(np.quantile(inside[index], share)) * 1000 for index in filled]


def in_flight(records: Sequence[RequestRecord], edges: Sequence[float]) -> Points:
    """How many requests were sent and not over at each edge."""
    sent = np.sort([record.sent_s for record in records if record.sent_s is not None])
    ended = np.sort([record.last_s for record in records if record.sent_s is not None and record.last_s is not None])
    running = np.searchsorted(sent, edges, side="right") - np.searchsorted(ended, edges, side="right")
    return list(edges), running.astype(float).tolist()


def distribution(records: Sequence[RequestRecord], measure: Measure) -> Points:
    """The cumulative distribution of the requests that ended well: milliseconds, and the share that took at most as long."""
    measured = [seconds for record in records if record.error is None and (seconds := measure(record)) is not None]
    if not measured:
        return [], []
    shares = np.linspace(0.0, 1.0, min(CDF_POINTS, len(measured) + 1))
    return (np.quantile(measured, shares) * 1000).tolist(), shares.tolist()
