"""What becomes of events: charged once, never over a budget, recorded whatever happens."""

import msgspec
import pytest
import sqlalchemy as sa

from bidder_api.database import Database
from ledger.command import AddFunds, OrderLine, OrderRecord, OrdersRecorded, RecordOrders, ReportedOrder
from ledger.errors import LedgerUnavailable, StorageFailed
from ledger.event import Client
from ledger.funding import to_moment
from ledger.settings import Settings
from ledger.store import erase_visitors
from ledger.terms import ChargeOn
from ledger.writer import LedgerWriter
from tests.ledger.world import MINUTE_MS, NOON_MS, RETAILER, World, codes

HOUR_MS = 60 * MINUTE_MS
KEPT_MS = 24 * HOUR_MS


def test_a_click_is_charged_the_price_in_its_token_in_balanced_postings(world: World) -> None:
    world.fund("adv-1", 10_000_019)
    result = world.click(world.fill(123_457), event_id="e1")
    assert codes([result]) == [("accepted", None, 123_457)]
    (event,) = world.rows("SELECT event_id, type, campaign_id, status, amount_micros, transaction_id FROM audit_event")
    assert event == ("e1", "click", "cmp-1", "accepted", 123_457, "txn_3")
    assert world.rows("SELECT seq, line, account, amount_micros, reason FROM audit_entry WHERE seq > 2") == [
        (3, 1, "wallet:adv-1", 123_457, "charge:click"),
        (4, 2, "revenue:media", -123_457, "charge:click"),
    ]
    assert world.balances() == {"cash": 10_000_019, "wallet:adv-1": -9_876_562, "revenue:media": -123_457}
    world.must_be_sound()


def test_sending_an_event_again_changes_nothing_and_gets_the_same_answer(world: World) -> None:
    world.fund("adv-1", 10**7)
    token = world.fill(123_457)
    sent = world.event(token, event_id="e1", occurred_at_ms=NOON_MS)
    world.record(sent)
    before = (
        world.rows("SELECT * FROM events") + world.rows("SELECT * FROM entries") + world.rows("SELECT * FROM chain")
    )
    assert codes(world.record(sent, sent)) == [("duplicate", None, 123_457)] * 2
    assert codes([world.click(token, event_id="another name")]) == [("duplicate", None, 123_457)]
    after = world.rows("SELECT * FROM events") + world.rows("SELECT * FROM entries") + world.rows("SELECT * FROM chain")
    assert after == before


def test_the_same_event_twice_in_one_batch_is_charged_once(world: World) -> None:
    world.fund("adv-1", 10**7)
    sent = world.event(world.fill(123_457))
    assert codes(world.record(sent, sent)) == [("accepted", None, 123_457), ("duplicate", None, 123_457)]
    world.must_be_sound()


def test_an_event_id_with_other_content_is_a_conflict(world: World) -> None:
    world.fund("adv-1", 10**7)
    token = world.fill()
    world.click(token, event_id="e1")
    others = [
        world.event(world.fill(), event_id="e1"),
        world.event(token, "impression", event_id="e1"),
        world.event(token, event_id="e1", occurred_at_ms=NOON_MS),
    ]
    assert codes(world.record(*others)) == [("conflict", "event_id_in_use", None)] * 3
    assert world.one("SELECT COUNT(*) FROM events") == 1


@pytest.mark.parametrize(
    ("charge_on", "kind", "expected"),
    [
        (ChargeOn.CLICK, "click", ("accepted", None, 7_919)),
        (ChargeOn.CLICK, "impression", ("accepted", None, 0)),
        (ChargeOn.CLICK, "view", ("accepted", None, 0)),
        (ChargeOn.IMPRESSION, "impression", ("accepted", None, 7_919)),
        (ChargeOn.IMPRESSION, "click", ("accepted", None, 0)),
        (ChargeOn.IMPRESSION, "view", ("accepted", None, 0)),
        (None, "impression", ("unbilled", "organic", 0)),
        (None, "click", ("unbilled", "organic", 0)),
    ],
)
def test_only_the_event_that_was_bid_on_is_charged_and_all_are_recorded(
    sqlite_world: World, charge_on: ChargeOn | None, kind: str, expected: tuple[str, str | None, int]
) -> None:
    sqlite_world.fund("adv-1", 10**7)
    result = sqlite_world.record(sqlite_world.event(sqlite_world.fill(7_919, charge_on=charge_on), kind))
    assert codes(result) == [expected]
    assert sqlite_world.rows("SELECT type, status FROM audit_event") == [(kind, expected[0])]
    sqlite_world.must_be_sound()


@pytest.mark.parametrize(
    ("daily", "total", "funds", "credit", "tightest"),
    [
        (100_003, 10**9, 10**9, 0, "daily_budget"),
        (10**9, 100_003, 10**9, 0, "total_budget"),
        (None, None, 100_003, 0, "funds"),
        (None, None, 60_000, 40_003, "funds"),
        (None, None, 0, 100_003, "funds"),
    ],
)
def test_the_event_that_crosses_a_line_is_charged_what_is_left_and_the_next_nothing(
    world: World, daily: int | None, total: int | None, funds: int, credit: int, tightest: str
) -> None:
    if funds:
        world.fund("adv-1", funds)
    if credit:
        world.credit("adv-1", credit)
    world.limit("cmp-1", "adv-1", daily, total)
    results = world.record(*(world.event(world.fill(39_989)) for _ in range(4)))
    assert codes(results) == [
        ("accepted", None, 39_989),
        ("accepted", None, 39_989),
        ("accepted", "partial", 100_003 - 2 * 39_989),
        ("unbilled", tightest, 0),
    ]
    assert world.one("SELECT SUM(given_back_micros) FROM events") == 4 * 39_989 - 100_003
    assert world.one("SELECT SUM(amount_micros) FROM audit_event") == 100_003
    world.must_be_sound()


def test_promotional_credit_is_spent_first_then_the_wallet_then_the_credit_line(world: World) -> None:
    world.fund("adv-1", 1_009, "promotional-credit")
    world.fund("adv-1", 2_003)
    world.credit("adv-1", 3_001)
    world.click(world.fill(6_007))
    assert world.rows("SELECT account, amount_micros FROM audit_entry WHERE seq > 4 ORDER BY seq") == [
        ("promo:adv-1", 1_009),
        ("wallet:adv-1", 2_003),
        ("unbilled:adv-1:2026-11", 2_995),
        ("revenue:media", -6_007),
    ]
    assert codes([world.click(world.fill(7))]) == [("accepted", "partial", 6)]
    world.must_be_sound()


def test_an_advertiser_without_money_is_not_charged(sqlite_world: World) -> None:
    assert codes([sqlite_world.click(sqlite_world.fill(7_919))]) == [("unbilled", "funds", 0)]
    sqlite_world.must_be_sound()


def test_a_free_click_is_accepted_without_a_transaction(sqlite_world: World) -> None:
    assert codes([sqlite_world.click(sqlite_world.fill(0))]) == [("accepted", None, 0)]
    assert sqlite_world.one("SELECT COUNT(*) FROM entries") == 0


def test_forged_foreign_and_old_tokens_are_rejected_and_leave_no_trace(sqlite_world: World) -> None:
    token = sqlite_world.fill()
    results = sqlite_world.record(
        sqlite_world.event("x" * 60), sqlite_world.event(token[:-1] + ("A" if token[-1] != "A" else "B"))
    )
    assert codes(results) == [("rejected", "forged", None)] * 2
    sqlite_world.clock.pass_ms(3 * 24 * HOUR_MS)
    assert codes([sqlite_world.click(token)]) == [("rejected", "expired", None)]
    assert sqlite_world.one("SELECT COUNT(*) FROM events") == 0


def test_an_impression_holds_half_an_hour_and_a_click_a_day(sqlite_world: World) -> None:
    sqlite_world.fund("adv-1", 10**9)
    token, other = sqlite_world.fill(), sqlite_world.fill()
    sqlite_world.clock.pass_ms(30 * MINUTE_MS)
    assert sqlite_world.record(sqlite_world.event(token, "impression"))[0].result == "accepted"
    sqlite_world.clock.pass_ms(1)
    assert codes(sqlite_world.record(sqlite_world.event(other, "impression"))) == [("rejected", "expired", None)]
    sqlite_world.clock.pass_ms(24 * HOUR_MS - 30 * MINUTE_MS - 1)
    assert sqlite_world.click(token).result == "accepted"
    sqlite_world.clock.pass_ms(1)
    assert codes([sqlite_world.click(other)]) == [("rejected", "expired", None)]


def test_a_duplicate_is_still_a_duplicate_after_its_token_expired(sqlite_world: World) -> None:
    sqlite_world.fund("adv-1", 10**9)
    sent = sqlite_world.event(sqlite_world.fill(7_919))
    sqlite_world.record(sent)
    sqlite_world.clock.pass_ms(25 * HOUR_MS)
    assert codes(sqlite_world.record(sent)) == [("duplicate", None, 7_919)]


def test_an_event_counts_for_the_day_it_happened_in_the_retailers_time_zone(sqlite_database: Database) -> None:
    world = World(sqlite_database, Settings(time_zone="Europe/Paris"))
    world.fund("adv-1", 10**9)
    world.limit("cmp-1", "adv-1", 10_007, None)
    world.clock.at_ms = NOON_MS + 11 * HOUR_MS - MINUTE_MS  # 22:59 UTC, 23:59 in Paris
    before = [world.fill(9_001) for _ in range(2)]
    world.clock.pass_ms(2 * MINUTE_MS)
    results = world.record(world.event(before[0], occurred_at_ms=world.clock() - 2 * MINUTE_MS), world.event(before[1]))
    assert codes(results) == [("accepted", None, 9_001)] * 2
    assert world.rows(
        "SELECT day, limit_micros, spent_micros FROM audit_budget WHERE scope = 'daily' ORDER BY day"
    ) == [
        ("2026-11-24", 10_007, 9_001),
        ("2026-11-25", 10_007, 9_001),
    ]


def test_no_clock_moves_an_event_before_its_fill_or_after_its_arrival(sqlite_world: World) -> None:
    sqlite_world.fund("adv-1", 10**9)
    tokens = [sqlite_world.fill() for _ in range(2)]
    sqlite_world.clock.pass_ms(MINUTE_MS)
    sqlite_world.click(tokens[0], occurred_at_ms=NOON_MS - 90 * 24 * HOUR_MS)
    sqlite_world.click(tokens[1], occurred_at_ms=NOON_MS + 90 * 24 * HOUR_MS)
    kept = sqlite_world.rows("SELECT occurred_at_ms, reported_at_ms FROM events ORDER BY seq")
    assert kept == [
        (NOON_MS, NOON_MS - 90 * 24 * HOUR_MS),
        (NOON_MS + MINUTE_MS, NOON_MS + 90 * 24 * HOUR_MS),
    ]


ROBOT = "Mozilla/5.0 (compatible; Examplebot/2.1; +https://example.org/bot.html)"


def test_declared_robots_are_recorded_and_not_charged_unless_turned_off(sqlite_database: Database) -> None:
    for setting, expected in (
        ("declared", ("unbilled", "robot", 0)),
        ("on", ("unbilled", "robot", 0)),
        ("off", ("accepted", None, 7_919)),
    ):
        world = World(sqlite_database, Settings(invalid_traffic=setting), seed=hash(setting))  # type: ignore[arg-type]
        world.fund("adv-1", 10**6)
        assert codes([world.click(world.fill(7_919), user_agent=ROBOT)]) == [expected]
    world.must_be_sound()


def test_a_click_without_an_impression_is_charged_unless_asked_otherwise(sqlite_database: Database) -> None:
    world = World(sqlite_database)
    world.fund("adv-1", 10**6)
    assert world.click(world.fill(7_919)).result == "accepted"
    strict = World(sqlite_database, Settings(invalid_traffic="on"), seed=2)
    assert codes([strict.click(strict.fill(7_919))]) == [("unbilled", "click_without_impression", 0)]
    together, before = strict.fill(7_919), strict.fill(7_919)
    results = strict.record(strict.event(together, "click"), strict.event(together, "impression"))
    assert codes(results)[0] == ("accepted", None, 7_919)
    strict.record(strict.event(before, "impression"))
    assert codes([strict.click(before)]) == [("accepted", None, 7_919)]


def test_a_click_sooner_than_anybody_can_press_is_not_charged_where_asked_for(sqlite_database: Database) -> None:
    strict = World(sqlite_database, Settings(invalid_traffic="on"))
    strict.fund("adv-1", 10**9)
    now = strict.clock()
    for after_ms, code in ((299, "click_too_fast"), (300, None), (-5, "click_too_fast")):
        for together in (True, False):
            token = strict.fill(7_919)
            strict.clock.pass_ms(1_000)
            seen = strict.event(token, "impression", occurred_at_ms=now + 500)
            click = strict.event(token, "click", occurred_at_ms=now + 500 + after_ms)
            results = strict.record(seen, click) if together else [*strict.record(seen), *strict.record(click)]
            assert results[1].code == code
            now = strict.clock()
    blind = strict.fill(7_919)
    assert strict.record(strict.event(blind, "impression"), strict.event(blind))[1].code is None, "no moments were told"
    strict.must_be_sound()


def test_a_click_a_visitor_repeats_is_not_charged_where_asked_for(sqlite_database: Database) -> None:
    strict = World(sqlite_database, Settings(invalid_traffic="on", repeated_click_s=30))
    strict.fund("adv-1", 10**9)
    visitor, other = bytes(range(16)), bytes(range(1, 17))

    def clicked(who: bytes = visitor, product_id: str = "p1") -> str | None:
        token = strict.fill(7_919, visitor=who, product_id=product_id)
        strict.record(strict.event(token, "impression"))
        first = strict.click(token, event_id="e" + token[-9:])
        again = strict.click(token, event_id="e" + token[-9:])
        assert (again.result, again.code) == ("duplicate", first.code)
        return first.code

    assert [clicked(), clicked()] == [None, "repeated_click"]
    assert [clicked(other), clicked(product_id="p2"), clicked(bytes(16)), clicked(bytes(16))] == [None] * 4
    strict.clock.pass_ms(29_999)
    assert clicked() == "repeated_click"
    strict.clock.pass_ms(1)
    assert clicked() is None, "it is those charged that count"
    lenient = World(sqlite_database, seed=5)
    token = lenient.fill(7_919, visitor=visitor)
    assert lenient.click(token).code is None
    assert strict.one("SELECT COUNT(*) FROM events WHERE code = 'repeated_click' AND amount_micros > 0") == 0
    strict.must_be_sound()


def test_nobody_shops_from_a_data_centre(sqlite_database: Database) -> None:
    ranges = Settings(data_centre_ranges="192.0.2.0/24, 2001:db8::/32")
    world = World(sqlite_database, ranges)
    world.fund("adv-1", 10**9)

    def clicked(ip: str) -> str | None:
        event = msgspec.structs.replace(world.event(world.fill(7_919)), client=Client(ip=ip))
        return world.record(event)[0].code

    assert [clicked(ip) for ip in ("192.0.2.7", "2001:db8::1")] == ["data_centre", "data_centre"]
    assert [clicked(ip) for ip in ("192.0.3.7", "2001:db9::1", "nonsense", "")] == [None] * 4


def test_a_lowered_limit_is_never_charged_past_and_spoils_no_figure(world: World) -> None:
    world.fund("adv-1", 10**9)
    world.limit("cmp-1", "adv-1", 50_021, 90_001)
    world.click(world.fill(40_009))
    world.limit("cmp-1", "adv-1", 30_011, 30_013)
    assert codes([world.click(world.fill(1))]) == [("unbilled", "daily_budget", 0)]
    world.must_be_sound()
    world.limit("cmp-1", "adv-1", None, 90_001)
    assert codes([world.click(world.fill(50_000))]) == [("accepted", "partial", 49_992)]
    world.must_be_sound()


def test_the_update_after_a_commit_tells_what_it_moved_and_the_state_tells_all(sqlite_world: World) -> None:
    sqlite_world.fund("adv-1", 100_003)
    _, moved = sqlite_world.writer.record([[sqlite_world.event(sqlite_world.fill(7_919))]])
    (campaign,), (funds,) = moved.campaigns, moved.funds
    assert (campaign.campaign_id, campaign.day) == ("cmp-1", "2026-11-24")
    assert (campaign.spent_day_micros, campaign.spent_total_micros) == (7_919, 7_919)
    assert (funds.advertiser_id, funds.funds_micros) == ("adv-1", 92_084)
    assert (moved.event_count, moved.billed_micros, moved.given_back_micros) == (1, 7_919, 0)
    state = sqlite_world.writer.state()
    assert (state.is_full, state.campaigns, state.funds) == (True, moved.campaigns, moved.funds)
    sqlite_world.clock.pass_ms(24 * HOUR_MS)
    (tomorrow,) = sqlite_world.writer.state().campaigns
    assert (tomorrow.day, tomorrow.spent_day_micros, tomorrow.spent_total_micros) == ("2026-11-25", 0, 7_919)


def test_the_books_hold_no_visitor_and_erasing_one_leaves_them_verifiable(sqlite_world: World) -> None:
    visitor, other = bytes(range(16)), bytes(range(1, 17))
    sqlite_world.fund("adv-1", 10**9)
    for who in (visitor, other, bytes(16)):
        sqlite_world.click(sqlite_world.fill(7_919, visitor=who))
    assert sqlite_world.one("SELECT COUNT(*) FROM touches") == 2
    for table in ("events", "entries", "chain", "balances", "campaign_spend", "funds"):
        for row in sqlite_world.rows(f"SELECT * FROM {table}"):
            assert not any(v == visitor or (isinstance(v, str) and visitor.hex() in v) for v in row)
    erase(sqlite_world, visitor)
    assert sqlite_world.rows("SELECT visitor FROM touches") == [(other,)]
    sqlite_world.must_be_sound()


def test_a_click_on_what_an_erased_visitor_was_shown_is_billed_and_is_nobodys(world: World) -> None:
    visitor, other = bytes(range(16)), bytes(range(1, 17))
    world.fund("adv-1", 10**9)
    before = [world.fill(7_919, visitor=who) for who in (visitor, other)]
    world.clock.pass_ms(1)
    erase(world, visitor)
    world.clock.pass_ms(1)
    results = [world.click(token) for token in [*before, world.fill(7_919, visitor=visitor)]]
    assert {one.result for one in results} == {"accepted"}
    assert [row[0] for row in world.rows("SELECT visitor FROM touches ORDER BY token_id")].count(visitor) == 1
    assert world.one("SELECT COUNT(*) FROM touches") == 2
    world.clock.pass_ms(KEPT_MS + 1)
    erase(world, other)  # the erasure of long ago is forgotten: no token of that time is taken any more
    assert world.one("SELECT COUNT(*) FROM erasures") == 1


def erase(world: World, *visitors: bytes) -> None:
    world.database.transact(lambda connection: erase_visitors(connection, RETAILER, visitors, world.clock(), KEPT_MS))


def order(order_id: str = "o1", quantity: int = 2, **changed: object) -> ReportedOrder:
    lines = [OrderLine(product_id="p1", quantity=quantity, unit_price_micros=1_990_000)]
    return ReportedOrder(order_id=order_id, occurred_at=to_moment(NOON_MS), lines=lines, **changed)  # type: ignore[arg-type]


def test_an_order_is_kept_once_with_its_channel_and_store_and_returns_follow_it(world: World) -> None:
    def keep(one: ReportedOrder) -> str:
        answer, _ = world.writer.command(RecordOrders([OrderRecord(one, b"v" * 16, b"c" * 16)]))
        assert isinstance(answer, OrdersRecorded)
        return answer.results[0].result

    assert keep(order(channel="store", store_id="s-7", traffic_source="newsletter")) == "accepted"
    assert keep(order(channel="store", store_id="s-7", traffic_source="newsletter")) == "duplicate"
    assert keep(order(quantity=3)) == "conflict"
    assert [keep(order(quantity=-1)), keep(order(quantity=-1))] == ["accepted", "duplicate"]
    assert world.rows("SELECT order_id, part, channel, store_id, traffic_source FROM orders ORDER BY part") == [
        ("o1", 0, "store", "s-7", "newsletter"),
        ("o1", 1, "web", None, None),
    ]
    assert world.rows("SELECT part, product_id, quantity, unit_price_micros FROM order_lines ORDER BY part") == [
        (0, "p1", 2, 1_990_000),
        (1, "p1", -1, 1_990_000),
    ]
    erase(world, b"v" * 16, b"c" * 16)
    assert world.rows("SELECT DISTINCT visitor, customer FROM orders") == [(None, None)]


def test_two_writers_on_one_database_make_one_sequence(world: World) -> None:
    other = world.new_writer()
    world.fund("adv-1", 10**9)
    for writer in (world.writer, other) * 3:
        writer.record([[world.event(world.fill(7_919))]])
    assert world.rows("SELECT seq FROM events ORDER BY seq") == [(n,) for n in range(1, 7)]
    world.must_be_sound()


class Broken(Exception):  # stands in for a driver's error
    def __init__(self, name: str | None = None, sqlstate: str | None = None) -> None:
        super().__init__(name)
        self.sqlite_errorname = name
        self.sqlstate = sqlstate


@pytest.mark.parametrize(
    ("said", "means"),
    [
        (Broken("SQLITE_FULL"), LedgerUnavailable),
        (Broken("SQLITE_BUSY"), LedgerUnavailable),
        (Broken("SQLITE_IOERR_FSYNC"), StorageFailed),
        (Broken("SQLITE_IOERR_WRITE"), StorageFailed),
        (Broken("SQLITE_CORRUPT"), StorageFailed),
        (Broken(sqlstate="53100"), LedgerUnavailable),
        (Broken(sqlstate="57P01"), LedgerUnavailable),
        (Broken(), LedgerUnavailable),
    ],
)
def test_what_storage_says_is_sorted_into_wait_and_stop(
    sqlite_world: World, said: Broken, means: type[Exception]
) -> None:
    from sqlalchemy.exc import OperationalError

    def transact(_work: object) -> object:
        raise OperationalError("COMMIT", {}, said)

    writer = LedgerWriter(
        transact, sqlite_world.database.read, RETAILER, sqlite_world.keys, Settings(), sqlite_world.clock
    )
    with pytest.raises(means):
        writer.record([[sqlite_world.event(sqlite_world.fill())]])
    with pytest.raises(means):
        writer.command(AddFunds("top-up", "adv-1", 1, "r"))


def test_what_a_start_reads_does_not_grow_with_the_charges(sqlite_world: World) -> None:
    """Balances and budgets are kept beside the rows they can be rebuilt from, and `verify` holds the two together."""
    sqlite_world.fund("adv-1", 10**9)
    sqlite_world.record(*(sqlite_world.event(sqlite_world.fill(7_919)) for _ in range(10)))
    read: list[str] = []

    @sa.event.listens_for(sqlite_world.database.engine, "before_cursor_execute")
    def note(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        read.append(statement)

    sqlite_world.database.renew_log()
    state = sqlite_world.new_writer().state()
    assert [one.wallet_micros for one in state.funds] == [10**9 - 79_190]
    assert any("FROM funds" in one for one in read)
    assert not [one for one in read if any(table in one for table in ("events", "entries", "touches", "chain"))]
