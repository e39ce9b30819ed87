"""Every figure of an auction reaches the scrape under its name."""

from prometheus_client import generate_latest
from prometheus_client.registry import CollectorRegistry

from auction.metrics import AuctionMetrics


def test_what_was_counted_is_scraped() -> None:
    registry = CollectorRegistry()
    metrics = AuctionMetrics(registry)
    metrics.count_auction(0.003, 20, False)
    metrics.count_auction(0.030, 20, True)
    metrics.fills["sponsored"] += 3
    metrics.count_no_fill("no_bids")
    metrics.snapshot_version, metrics.snapshot_age_s = 7, lambda: 2.5
    metrics.campaigns_paced, metrics.fills_given_back = lambda: 4, lambda: 5
    metrics.receipt_counts = lambda: (11, 3)
    text = generate_latest(registry).decode()
    for line in (
        "endcap_auctions_total 2.0",
        "endcap_auction_partial_total 1.0",
        "endcap_auction_late_total 1.0",
        'endcap_fills_total{kind="sponsored"} 3.0',
        'endcap_no_fills_total{reason="no_bids"} 1.0',
        'endcap_auction_duration_seconds_bucket{le="0.005"} 1.0',
        'endcap_auction_duration_seconds_bucket{le="+Inf"} 2.0',
        'endcap_auction_budget_used_ratio_bucket{le="1.0"} 1.0',
        "endcap_receipts_written_total 11.0",
        "endcap_receipts_dropped_total 3.0",
        "endcap_campaigns_paced 4.0",
        "endcap_fills_given_back_total 5.0",
        "endcap_snapshot_version 7.0",
        "endcap_snapshot_age_seconds 2.5",
    ):
        assert line in text, line
