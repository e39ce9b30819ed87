"""What the ledger tells Prometheus, counted in the processes that take events."""

from collections.abc import Callable, Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from ledger.event import EventResult, ReportedEvent
from ledger.spend import SpendUpdate


class LedgerMetrics:
    """The ledger's metrics.

    Args:
        registry: where they are shown.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self._events = Counter(
            "endcap_ledger_events",
            "Events answered, by what became of them",
            ["type", "result", "code"],
            registry=registry,
        )
        self._refused = Counter(
            "endcap_ledger_events_unanswered",
            "Events that could not be written and were to be sent again",
            registry=registry,
        )
        self._commit_events = Histogram(
            "endcap_ledger_commit_events",
            "Events written in one commit",
            buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256, 512),
            registry=registry,
        )
        self._commit_seconds = Histogram(
            "endcap_ledger_commit_seconds",
            "Time from opening the first token of a commit to its being durable",
            buckets=(0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 5),
            registry=registry,
        )
        self._billed = Counter("endcap_ledger_billed_micros", "Charged to advertisers", registry=registry)
        self._given_back = Counter(
            "endcap_ledger_given_back_micros", "Promised prices that no budget was left for", registry=registry
        )
        self._unwritable = Gauge(
            "endcap_ledger_unwritable_seconds", "For how long nothing could be written; 0 is well", registry=registry
        )

    def watch(self, unwritable_s: Callable[[], float]) -> None:
        """Show how long nothing could be written, asked whenever the metrics are read."""
        self._unwritable.set_function(unwritable_s)

    def answered(self, events: Sequence[ReportedEvent], results: Sequence[EventResult]) -> None:
        """Count what became of events."""
        for event, result in zip(events, results, strict=True):
            self._events.labels(event.type.value, result.result, result.code or "").inc()

    def unanswered(self, event_count: int) -> None:
        """Count events that have to be sent again."""
        self._refused.inc(event_count)

    def moved(self, update: SpendUpdate) -> None:
        """Count one commit."""
        if update.is_full:
            return
        if update.event_count:
            self._commit_events.observe(update.event_count)
            self._commit_seconds.observe(update.commit_seconds)
        self._billed.inc(update.billed_micros)
        self._given_back.inc(update.given_back_micros)
