"""Finance's figures are those of the journal."""

import hashlib

import pytest

from ledger import reports
from ledger.errors import RequestRefused
from tests.ledger.world import MINUTE_MS, NOON_MS, RETAILER, World

HOUR_MS = 60 * MINUTE_MS
DAY_MS = 24 * HOUR_MS


def test_a_statement_opens_where_the_month_before_closed(world: World) -> None:
    world.fund("adv-1", 1_000_003)
    world.limit("cmp-1", "adv-1", None, None)
    world.click(world.fill(123_457))
    world.clock.pass_ms(8 * DAY_MS)
    world.click(world.fill(7_919))
    november, december = (
        world.database.read(lambda c, p=period: reports.read_statement(c, RETAILER, "adv-1", p))
        for period in ("2026-11", "2026-12")
    )
    (wallet,) = november.accounts
    assert (wallet.opening_micros, wallet.debit_micros, wallet.credit_micros) == (0, 123_457, 1_000_003)
    (later,) = december.accounts
    assert (later.opening_micros, later.debit_micros, later.credit_micros) == (wallet.closing_micros, 7_919, 0)
    assert -later.closing_micros == 1_000_003 - 123_457 - 7_919
    assert [(one.day, one.charged_micros) for one in november.campaigns] == [("2026-11-24", 123_457)]
    assert [(one.day, one.charged_micros) for one in december.campaigns] == [("2026-12-02", 7_919)]
    assert december.funds is not None
    assert december.funds.funds_micros == -later.closing_micros


def test_the_trial_balance_is_even(world: World) -> None:
    world.fund("adv-1", 1_000_003)
    world.credit("adv-2", 500_009)
    for _ in range(5):
        world.click(world.fill(world.chance.randint(1, 99_991)))
        world.click(world.fill(world.chance.randint(1, 99_991), advertiser_id="adv-2", campaign_id="cmp-2"))
    trial = world.database.read(lambda c: reports.trial_balance(c, RETAILER))
    assert trial.difference_micros == 0
    assert trial.debit_micros == trial.credit_micros > 0


def test_three_rows_missing_from_a_log_are_found_by_the_digests(world: World) -> None:
    world.fund("adv-1", 10**9)
    log: dict[str, tuple[str, int]] = {}
    for hour in range(4):
        world.clock.at_ms = NOON_MS + hour * HOUR_MS
        for campaign_id in ("cmp-1", "cmp-2"):
            for _ in range(5):
                sent = world.event(world.fill(world.chance.randint(1, 9_973), campaign_id=campaign_id))
                world.record(sent)
                log[sent.event_id] = (campaign_id, hour)
    missing = sorted(world.chance.sample(sorted(log), 3))
    kept = {event_id: where for event_id, where in log.items() if event_id not in missing}
    found = []
    recorded = world.database.read(lambda c: reports.reconcile(c, RETAILER, NOON_MS, NOON_MS + DAY_MS))
    assert sum(line.count for line in recorded.items) == len(log)
    for line in recorded.items:
        where = (line.campaign_id, (int(line.hour.timestamp() * 1000) - NOON_MS) // HOUR_MS)
        own = [event_id for event_id, place in kept.items() if place == where]
        if line.digest != reports.digest_of(own):
            gap = (int(line.digest, 16) - int(reports.digest_of(own), 16)) % 2**128
            candidates = [event_id for event_id, place in log.items() if place == where and event_id not in own]
            assert gap == int(reports.digest_of(candidates), 16)
            found += candidates
    assert sorted(found) == missing


def test_the_digest_is_what_the_contract_says() -> None:
    one, two = (int.from_bytes(hashlib.sha256(name).digest(), "big") for name in (b"e1", b"e2"))
    assert reports.digest_of(["e1", "e2"]) == f"{(one + two) % 2**128:032x}"


@pytest.mark.parametrize("to_ms", [NOON_MS, NOON_MS - 1, NOON_MS + 33 * DAY_MS])
def test_an_empty_or_endless_range_is_refused(sqlite_world: World, to_ms: int) -> None:
    with pytest.raises(RequestRefused):
        sqlite_world.database.read(lambda c: reports.reconcile(c, RETAILER, NOON_MS, to_ms))
