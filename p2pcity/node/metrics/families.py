"""The kinds of metric, made of what the node has counted; all names begin with `p2pcity_`.

A label's values are names of this code (a state, a reason, a route), never what a peer or a
client sent: the number of series is bounded by the code, and each is there from the start.
"""

from collections.abc import Iterable, Mapping
from typing import Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.utils import floatToGoString

from p2pcity.ledger.durations import Histogram

PREFIX: Final = "p2pcity_"


def gauge(name: str, says: str, value: float | None) -> Metric:
    """A figure that rises and falls; None where there is none at the moment."""
    return GaugeMetricFamily(PREFIX + name, says, value)


def gauges(name: str, says: str, label: str, values: Mapping[str, float]) -> Metric:
    """A gauge for each value of a label."""
    family = GaugeMetricFamily(PREFIX + name, says, labels=[label])
    for key, value in values.items():
        family.add_metric([key], value)
    return family


def one_of(name: str, says: str, label: str, all_: Iterable[str], now: str) -> Metric:
    """A gauge for each state: 1 for the one that holds now, 0 for the others."""
    return gauges(name, says, label, {state: float(state == now) for state in all_})


def counter(name: str, says: str, value: float) -> Metric:
    """A count since the start; `name` without its `_total`."""
    return CounterMetricFamily(PREFIX + name, says, value)


def counters(
    name: str, says: str, labels: tuple[str, ...], values: Mapping[tuple[str, ...], float]
) -> Metric:
    """A counter for each combination of the labels' values; `name` without its `_total`."""
    family = CounterMetricFamily(PREFIX + name, says, labels=labels)
    for key, value in values.items():
        family.add_metric(key, value)
    return family


def durations(name: str, says: str, histogram: Histogram) -> Metric:
    """A histogram of durations in s."""
    bounds = (*map(floatToGoString, histogram.bounds_s), "+Inf")
    buckets = list(zip(bounds, histogram.cumulative, strict=True))
    return HistogramMetricFamily(PREFIX + name, says, buckets, histogram.sum_s)
