"""Clocks that jump, and nights that have 23 or 25 hours: nothing is lost, and every day is somebody's."""

from datetime import datetime
from zoneinfo import ZoneInfo

import pytest

from ledger.settings import Settings
from tests.ledger.world import World

PARIS = "Europe/Paris"
MINUTE_MS, HOUR_MS, DAY_MS = 60_000, 3_600_000, 86_400_000


def paris(text: str, fold: int = 0) -> int:
    return round(datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(PARIS), fold=fold).timestamp() * 1000)


@pytest.fixture
def shop(world: World) -> World:
    made = World(world.database, Settings(time_zone=PARIS))
    made.fund("adv-1", 10**10)
    return made


@pytest.mark.parametrize("jump_ms", [HOUR_MS, -2 * HOUR_MS, DAY_MS, -DAY_MS], ids=["+1 h", "-2 h", "+1 day", "-1 day"])
def test_no_jump_of_the_clock_loses_an_event_or_breaks_the_sequence(shop: World, jump_ms: int) -> None:
    """Tokens made before the jump that cannot be believed after it are refused by name; all others are charged."""
    sent = 0
    for step in range(12):
        tokens = [shop.fill(shop.chance.randint(1, 9_973)) for _ in range(3)]
        if step % 4 == 3:
            shop.clock.pass_ms(jump_ms if step != 7 else -jump_ms)
        results = shop.record(*(shop.event(token) for token in tokens))
        for result in results:
            assert (result.result, result.code) in {
                ("accepted", None), ("rejected", "from_the_future"), ("rejected", "expired"),
            }, result  # fmt: skip
            sent += result.result == "accepted"
        shop.clock.pass_ms(MINUTE_MS)
    assert shop.one("SELECT COUNT(*) FROM events") == sent > 12
    seqs = [row[0] for row in shop.rows("SELECT seq FROM events ORDER BY seq")]
    assert seqs == list(range(1, sent + 1))
    print(f"jump of {jump_ms / HOUR_MS:+g} h: acknowledged {sent}, lost 0, sequence without gaps")
    shop.must_be_sound()


@pytest.mark.parametrize(
    ("from_", "to", "hours"),
    [("2026-03-29T00:00", "2026-03-30T00:00", 23), ("2026-10-25T00:00", "2026-10-26T00:00", 25)],
)
def test_a_night_of_another_length_is_one_day_with_one_budget(shop: World, from_: str, to: str, hours: int) -> None:
    shop.limit("cmp-1", "adv-1", 1_000_003, None)
    shop.clock.at_ms = paris(from_)
    assert paris(to) - paris(from_) == hours * HOUR_MS
    while shop.clock.at_ms < paris(to):
        shop.click(shop.fill(99_991))
        shop.clock.pass_ms(HOUR_MS)
    assert shop.rows("SELECT day, spent_micros FROM audit_budget WHERE scope = 'daily'") == [(from_[:10], 1_000_003)]
    assert shop.one("SELECT COUNT(*) FROM events") == hours
    shop.must_be_sound()


def test_the_last_minute_of_a_year_and_the_first_of_the_next_are_two_days_and_two_months(shop: World) -> None:
    shop.limit("cmp-1", "adv-1", 100_003, None)
    shop.clock.at_ms = paris("2026-12-31T23:59:59")
    tokens = [shop.fill(60_000) for _ in range(4)]
    shop.click(tokens[0])
    late = shop.clock.at_ms
    shop.clock.pass_ms(2_000)
    shop.click(tokens[1])
    shop.click(tokens[2], occurred_at_ms=late)  # told late: charged to the day it happened on
    shop.click(tokens[3])
    assert shop.rows("SELECT day, amount_micros FROM events ORDER BY seq") == [
        ("2026-12-31", 60_000), ("2027-01-01", 60_000), ("2026-12-31", 40_003), ("2027-01-01", 40_003),
    ]  # fmt: skip
    assert shop.rows("SELECT DISTINCT period FROM entries WHERE reason = 'charge:click' ORDER BY period") == [
        ("2026-12",), ("2027-01",),
    ]  # fmt: skip
    shop.must_be_sound()
