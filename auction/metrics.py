"""What is counted about auctions: plain numbers on the slot path, turned into Prometheus's words when scraped."""

from bisect import bisect_left
from collections.abc import Callable, Iterable

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector, CollectorRegistry

from affinity.clicks import Watched
from affinity.watch import calibration_of

DURATION_BOUNDS_S = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.02, 0.05, 0.1)
BUDGET_BOUNDS = (0.05, 0.1, 0.25, 0.5, 0.75, 1.0, 1.5)  # of tmax_ms


class AuctionMetrics(Collector):
    """Counters of one process.

    Attributes:
        snapshot_age_s, campaigns_paced, fills_given_back: asked when scraped.
        watched: likewise: how predicted clicks hold, per placement.
        receipt_counts: likewise: how many receipts were written, and how many dropped.
    """

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self.auctions = 0
        self.partials = 0
        self.late = 0
        self.fills = {"sponsored": 0, "booked": 0, "organic": 0}
        self.no_fills: dict[str, int] = {}
        self.snapshot_version = 0
        self.snapshot_age_s: Callable[[], float] = float
        self.receipt_counts: Callable[[], tuple[int, int]] = lambda: (0, 0)
        self.campaigns_paced: Callable[[], int] = int
        self.watched: Callable[[], list[Watched]] = list
        self.fills_given_back: Callable[[], int] = int
        self._durations = [0] * (len(DURATION_BOUNDS_S) + 1)
        self._duration_sum_s = 0.0
        self._shares = [0] * (len(BUDGET_BOUNDS) + 1)
        self._share_sum = 0.0
        if registry is not None:
            registry.register(self)

    def count_auction(self, duration_s: float, tmax_ms: int, is_partial: bool) -> None:
        """Count one auction and how long it took, beside what it might have taken."""
        share = duration_s * 1000 / tmax_ms
        self.auctions += 1
        self.partials += is_partial
        self.late += share > 1
        self._durations[bisect_left(DURATION_BOUNDS_S, duration_s)] += 1
        self._duration_sum_s += duration_s
        self._shares[bisect_left(BUDGET_BOUNDS, share)] += 1
        self._share_sum += share

    def count_no_fill(self, reason: str) -> None:
        """Count a placement that got nothing."""
        self.no_fills[reason] = self.no_fills.get(reason, 0) + 1

    def collect(self) -> Iterable[Metric]:
        """Yield the metrics as Prometheus names them."""
        yield CounterMetricFamily("endcap_auctions", "Auctions held.", self.auctions)
        yield CounterMetricFamily(
            "endcap_auction_partial", "Answers that did not look at every candidate.", self.partials
        )
        yield CounterMetricFamily("endcap_auction_late", "Answers after the page's tmax_ms.", self.late)
        fills = CounterMetricFamily("endcap_fills", "Slots filled.", labels=["kind"])
        for kind, count in self.fills.items():
            fills.add_metric([kind], count)
        yield fills
        no_fills = CounterMetricFamily("endcap_no_fills", "Placements without a fill, by reason.", labels=["reason"])
        for reason, count in sorted(self.no_fills.items()):
            no_fills.add_metric([reason], count)
        yield no_fills
        yield HistogramMetricFamily(
            "endcap_auction_duration_seconds",
            "From decoded request to answer.",
            buckets=_buckets(DURATION_BOUNDS_S, self._durations),
            sum_value=self._duration_sum_s,
        )
        yield HistogramMetricFamily(
            "endcap_auction_budget_used_ratio",
            "Part of tmax_ms an answer took.",
            buckets=_buckets(BUDGET_BOUNDS, self._shares),
            sum_value=self._share_sum,
        )
        written, dropped = self.receipt_counts()
        yield CounterMetricFamily("endcap_receipts_written", "Receipts written to segments.", written)
        yield CounterMetricFamily("endcap_receipts_dropped", "Receipts not written: a full queue or disk.", dropped)
        yield GaugeMetricFamily("endcap_snapshot_version", "Version of the snapshot in use.", self.snapshot_version)
        yield GaugeMetricFamily(
            "endcap_snapshot_age_seconds", "Since the snapshot in use was read.", self.snapshot_age_s()
        )
        yield GaugeMetricFamily(
            "endcap_campaigns_paced", "Campaigns whose bids are lowered now.", self.campaigns_paced()
        )
        yield CounterMetricFamily(
            "endcap_fills_given_back",
            "Fills that never rendered, taken back from frequency caps and visitors' limits.",
            self.fills_given_back(),
        )
        yield from self._calibration()

    def _calibration(self) -> Iterable[Metric]:
        """Yield how predicted clicks hold, over the last 2,000 to 4,000 clicks of each placement."""
        of_placement = ["placement"]
        clicks = GaugeMetricFamily("endcap_quality_clicks", "Clicks of late, by placement.", labels=of_placement)
        expected = GaugeMetricFamily(
            "endcap_quality_expected_clicks",
            "Clicks that were predicted in the same time; clicks over these should be 0.95 to 1.05.",
            labels=of_placement,
        )
        error = GaugeMetricFamily(
            "endcap_quality_calibration_error",
            "Mean gap between predicted and true clicks per impression; should be at most 0.01.",
            labels=of_placement,
        )
        for calibration in map(calibration_of, self.watched()):
            clicks.add_metric([calibration.placement_id], calibration.clicks)
            expected.add_metric([calibration.placement_id], calibration.expected_clicks)
            error.add_metric([calibration.placement_id], calibration.error or 0.0)
        yield from (clicks, expected, error)


def _buckets(bounds: tuple[float, ...], counts: list[int]) -> list[tuple[str, float]]:
    buckets: list[tuple[str, float]] = []
    total = 0
    for bound, count in zip((*map(str, bounds), "+Inf"), counts, strict=True):
        total += count
        buckets.append((bound, total))
    return buckets
