"""What this package counts for `/metrics`."""

from prometheus_client import CollectorRegistry, Counter, Gauge

from affinity.visitors import Recorded


class AffinityMetrics:
    """Counters of navigation and visitors.

    Args:
        registry: where they are shown.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self.events = Counter(
            "endcap_navigation_events_total", "Navigation events by what became of them", ["result"], registry=registry
        )
        self.visitors = Gauge("endcap_visitors", "Visitors whose state is in memory", registry=registry)
        self.erasures = Counter("endcap_erasures_total", "Visitors erased on request", registry=registry)
        self.withdrawals = Counter(
            "endcap_withdrawals_total", "Visitors forgotten because consent was refused", registry=registry
        )
        self.unread_fills = Counter(
            "endcap_fills_without_visitor_total",
            "Pages filled without their visitor, whose shared state could not be read in time",
            registry=registry,
        )
        self.store_up = Gauge(
            "endcap_visitor_store_up", "Whether the server that visitors are shared through answers", registry=registry
        )
        self.store_up.set(1)
        self.unsent = Gauge(
            "endcap_visitors_unsent", "Visitors of whom something is logged and not shared yet", registry=registry
        )
        self._recorded = self.events.labels("recorded")
        self._duplicates = self.events.labels("duplicate")
        self._ignored = self.events.labels("ignored")

    def count_events(self, recorded: Recorded) -> None:
        """Count a batch."""
        self._recorded.inc(recorded.recorded)
        self._duplicates.inc(recorded.duplicates)
        self._ignored.inc(recorded.ignored)
