"""`GET /metrics`: everything that the node counts, as Prometheus's text.

Nothing is counted twice and nothing is kept here: a scrape reads the parts' own figures, so that
between scrapes metrics cost nothing. The registry is this node's own; the library's global one,
in which other libraries may put what they like, is not served.
"""

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from p2pcity.node.metrics import ledger_figures, ordering_figures, traffic_figures
from p2pcity.node.metrics.families import PREFIX
from p2pcity.node.metrics.observed import Observed


class _NodeCollector(Collector):
    """What the library asks for the families of one node."""

    def __init__(self, parts: Observed) -> None:
        self._parts = parts

    def collect(self) -> Iterator[Metric]:
        """Give every family once."""
        yield from ordering_figures.families(self._parts)
        yield from ledger_figures.families(self._parts)
        yield from traffic_figures.families(self._parts)


class Metrics:
    """The metrics of one node."""

    def __init__(self, parts: Observed) -> None:
        """Take the node's parts, which need not all be made yet."""
        self._registry = CollectorRegistry()
        self._registry.register(_NodeCollector(parts))
        ProcessCollector(namespace=PREFIX.rstrip("_"), registry=self._registry)

    def text(self) -> bytes:
        """Return all figures in text format 0.0.4; 2 to 3 ms on the event loop."""
        return generate_latest(self._registry)
