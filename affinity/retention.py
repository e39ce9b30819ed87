"""Forgetting navigation that is older than it may be kept."""

from affinity.computed import Purchases
from affinity.matching import ancestry
from affinity.record import VisitorRecord, interest_weight
from affinity.settings import Settings


def forget_before(record: VisitorRecord, cutoff_ms: int, settings: Settings) -> bool:
    """Take out of a record what happened before a moment; say whether nothing is left.

    Interest in categories and brands is a sum: what the record's oldest events added is taken out of it, and what still
    older ones did, which it no longer has, goes with the record. The summary of purchases goes with the last of them.
    """
    events = record.events
    count = next((place for place, one in enumerate(events) if one.at_ms >= cutoff_ms), len(events))
    if not (count or _is_older(record, cutoff_ms)):
        return False
    for happening in events[:count]:
        weight = interest_weight(happening, settings)
        if happening.category_id is not None:
            record.category_total -= weight
            for category_id in ancestry(happening.category_id):
                _take_off(record.category_weight, category_id, weight)
        if happening.brand is not None:
            record.brand_total -= weight
            _take_off(record.brand_weight, happening.brand, weight)
    del events[:count]
    for times in (record.bought_product, record.bought_category, record.bought_brand):
        for name in [name for name, at_ms in times.items() if at_ms < cutoff_ms]:
            del times[name]
    for bid_id, shown_at_ms in list(record.served_at_ms.items()):
        shown_at_ms[:] = [at_ms for at_ms in shown_at_ms if at_ms >= cutoff_ms]
        if not shown_at_ms:
            del record.served_at_ms[bid_id]
    for placement_id, shown in list(record.shown.items()):
        shown.at_ms[:] = [at_ms for at_ms in shown.at_ms if at_ms >= cutoff_ms]
        if not shown.at_ms and shown.clicked_at_ms < cutoff_ms:
            del record.shown[placement_id]
    if record.purchases.last_at_ms < cutoff_ms:
        record.purchases = Purchases(through_ms=record.purchases.through_ms)
    record.changed()
    return not (events or record.served_at_ms or record.shown or record.purchases.order_count)


def _is_older(record: VisitorRecord, cutoff_ms: int) -> bool:
    """Say whether anything beside the events is from before the moment."""
    times = [
        *record.bought_product.values(),
        *record.bought_category.values(),
        *record.bought_brand.values(),
        *(shown_at_ms[0] for shown_at_ms in record.served_at_ms.values() if shown_at_ms),
        *(shown.at_ms[0] for shown in record.shown.values() if shown.at_ms),
    ]
    return min(times, default=cutoff_ms) < cutoff_ms


def _take_off(weights: dict[str, float], name: str, weight: float) -> None:
    left = weights.get(name, 0.0) - weight
    if left > weight * 1e-9:  # else it was all there was, but for rounding
        weights[name] = left
    else:
        weights.pop(name, None)
