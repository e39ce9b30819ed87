"""The simulation's till is the ledger itself: charges balance and no budget is passed."""

from ledger.beacon import BeaconKeys
from ledger.event import EventType, ReportedEvent
from ledger.money import Micros
from ledger.spend import SpendUpdate
from ledger.terms import NO_VISITOR, ChargeOn, ChargeTerms
from sim.till import Till

NOW_MS = 1_795_000_000_000


def test_a_budget_is_billed_to_the_micro_and_the_books_sum_to_nothing() -> None:
    keys = BeaconKeys({1: b"k" * 32}, 1, first_count=0)
    updates: list[SpendUpdate] = []
    till = Till(keys, "EUR", "UTC", lambda: NOW_MS, updates.append)
    till.open_account("adv-1", "cmp-1", 250_007, None, 10_000_000)
    events = [
        ReportedEvent(event_id=f"e{row}", type=EventType.CLICK, beacon_token=keys.seal_beacon(terms(row)))
        for row in range(4)
    ]
    amounts = [one.amount_micros for one in till.record(events)]
    assert amounts == [100_003, 100_003, 50_001, 0]
    assert updates[-1].campaigns[0].spent_day_micros == 250_007
    books = till.close()
    assert (books.sum_micros, books.overspent_micros, books.billed_micros) == (0, 0, 250_007)
    assert sum(books.events.values()) == 4


def terms(row: int) -> ChargeTerms:
    return ChargeTerms(
        auction_id=f"auc-{row}",
        placement_id="top",
        slot_position=1,
        product_id="p1",
        is_sponsored=True,
        advertiser_id="adv-1",
        campaign_id="cmp-1",
        bid_id="bid-1",
        charge_on=ChargeOn.CLICK,
        price_micros=Micros(100_003),
        quality_ppm=10_000,
        visitor_pseudonym=NO_VISITOR,
        variant=None,
        issued_at_ms=NOW_MS,
    )
