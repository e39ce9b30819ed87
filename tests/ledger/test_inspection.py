"""Invalid traffic found afterwards: gross is valid plus invalid in every report, and every charge is undone once."""

import contextlib
import random
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bidder_api.database import open_database
from ledger import inspection, store
from ledger.attribution import MODELS
from ledger.command import ClosePeriod, ReverseInvalid
from ledger.errors import ConflictRefused
from ledger.inspection import find_before_seal, find_new
from ledger.performance import REPORTS, report_performance
from ledger.reports import read_statement, reconcile
from ledger.sales import report_sales
from ledger.settings import Settings
from ledger.terms import ChargeOn
from ledger.traffic import INVALID_CODES, RULES
from tests.ledger.test_endpoint import open_site
from tests.ledger.test_sales import FACTS
from tests.ledger.world import NOON_MS, RETAILER, World

DAY_MS = 86_400_000
MONTH = "2026-11"
STRICT = Settings(invalid_traffic="on")
CAMPAIGNS = {"cmp-1": "adv-1", "cmp-2": "adv-1", "cmp-3": "adv-2"}
IN_DECEMBER_MS = NOON_MS + 12 * DAY_MS  # past the 72 hours


class Killed(BaseException):
    """The process is gone."""


def a_month(world: World) -> None:
    """Let shoppers and robots come on two days, with odd prices, tight budgets, credit and promotion."""
    chance = world.chance
    world.fund("adv-1", 2 * 10**6 + 1)
    world.fund("adv-1", 30_011, "promotional-credit")
    world.credit("adv-1", 3 * 10**6 + 7)
    world.fund("adv-2", 10**9 + 3)
    world.limit("cmp-1", "adv-1", None, None)
    world.limit("cmp-2", "adv-1", 900_007, None)
    world.limit("cmp-3", "adv-2", None, None)
    world.clock.at_ms = NOON_MS - 2 * DAY_MS
    for _ in range(2):
        for _ in range(32):
            sends(world, chance.randbytes(16), chance.randint(1, 3), chance.randint(20_000, 200_000))
        sends(world, chance.randbytes(16), chance.randint(90, 120), 1_500)  # a flood
        sends(world, chance.randbytes(16), chance.randint(0, 14), 60_000)  # a clock
        sends(world, bytes(16), chance.randint(0, 6), 900, auction="auc_" + f"{chance.getrandbits(60):x}")  # a sweep
        sends(world, chance.randbytes(16), chance.randint(0, 5), 5_000, product_id="same")  # the same again
        world.record(world.event(world.fill(7_919), user_agent="Googlebot/2.1"))
        world.clock.at_ms = NOON_MS - DAY_MS


def sends(world: World, visitor: bytes, count: int, gap_ms: int, auction: str | None = None, **what: Any) -> None:
    chance = world.chance
    for _ in range(count):
        campaign = str(what.get("campaign_id", chance.choice(sorted(CAMPAIGNS))))
        basis = what.get("charge_on", chance.choice([ChargeOn.CLICK, ChargeOn.CLICK, ChargeOn.IMPRESSION]))
        product_id = str(what.get("product_id", f"p{chance.randrange(10**6)}"))
        terms = world.terms(chance.randint(1, 99_991), basis, CAMPAIGNS[campaign], campaign, visitor, product_id)
        token = world.keys.seal_beacon(terms if auction is None else with_auction(terms, auction))
        world.record(world.event(token, "impression"), world.event(token, "click"))
        world.clock.pass_ms(gap_ms)


def with_auction(terms: Any, auction_id: str) -> Any:
    from msgspec.structs import replace

    return replace(terms, auction_id=terms.auction_id[:10] + auction_id[4:20].rjust(20, "0"))


def inspect(world: World) -> int:
    """Run the pass as the command does, and return how many events it was new of."""
    count = 0
    for some in world.database.read(lambda c: find_new(c, RETAILER, MONTH, STRICT, world.clock())):
        answer, _ = world.writer.command(ReverseInvalid(some))
        count += answer.event_count  # type: ignore[union-attr]
    return count


def gross_is_valid_plus_invalid(world: World) -> None:
    """Hold every report against sums over the rows that know nothing of the reports."""
    codes = ", ".join(f"'{code}'" for code in sorted(INVALID_CODES))
    invalid_count, gross_count = world.rows(
        f"SELECT COUNT(f.rule) + SUM(CASE WHEN e.code IN ({codes}) THEN 1 ELSE 0 END), COUNT(*) FROM events e "
        "LEFT JOIN findings f ON f.event_seq = e.seq WHERE e.campaign_id IS NOT NULL"
    )[0]
    gross = int(str(world.one("SELECT SUM(amount_micros) FROM audit_event")))
    undone = int(str(world.one(
        "SELECT COALESCE(SUM(amount_micros), 0) FROM audit_entry WHERE account = 'revenue:media' "
        "AND reason LIKE 'invalid:%'"
    )))  # fmt: skip
    from_ms, to_ms = NOON_MS - 10 * DAY_MS, NOON_MS + DAY_MS

    def read(work: Callable[[Any], Any]) -> Any:
        return world.database.read(work)

    for report in REPORTS:
        lines = read(lambda c, report=report: report_performance(
            c, RETAILER, report, "EUR", "UTC", from_ms, to_ms, "day", MODELS["default"], lambda _c, _p: FACTS,
            world.clock(), None,
        )).items  # fmt: skip
        for one in lines:
            assert one.gross_clicks == one.clicks + one.invalid_clicks
            assert one.gross_impressions == one.impressions + one.invalid_impressions
            assert one.charged_micros == one.valid_micros + one.invalid_micros
        assert sum(sum(one.invalid_by_reason.values()) for one in lines) == invalid_count
        assert (sum(one.charged_micros for one in lines), sum(one.invalid_micros for one in lines)) == (gross, undone)
    items = read(lambda c: reconcile(c, RETAILER, from_ms, to_ms)).items
    assert sum(one.count for one in items) == gross_count
    assert sum(one.invalid_count for one in items) == invalid_count
    assert (sum(one.amount_micros for one in items), sum(one.invalid_micros for one in items)) == (gross, undone)
    sold = read(lambda c: report_sales(
        c, RETAILER, "EUR", from_ms, to_ms, MODELS["default"], lambda _c, _p: FACTS, world.clock()
    )).items  # fmt: skip
    assert (sum(one.charged_micros for one in sold), sum(one.invalid_micros for one in sold)) == (gross, undone)
    days = [day for who in ("adv-1", "adv-2")
            for day in read(lambda c, who=who: read_statement(c, RETAILER, who, MONTH)).campaigns]  # fmt: skip
    assert sum(day.invalid_micros for day in days) == undone


def nothing_is_undone_twice_or_too_late(world: World) -> None:
    doubled = "SELECT COUNT(*) FROM (SELECT 1 FROM entries WHERE line = 1 AND reverses IS NOT NULL " \
        "GROUP BY reverses HAVING COUNT(*) > 1) d"  # fmt: skip
    assert world.one(doubled) == 0
    late = (
        "SELECT COUNT(*) FROM entries undone "
        "JOIN entries done ON done.transaction_id = undone.reverses AND done.line = 1 "
        "JOIN closings c ON c.period = done.period AND c.stage = 'sealed' WHERE undone.reason LIKE 'invalid:%' "
        "AND undone.line = 1 AND undone.recorded_at_ms >= c.closed_at_ms"
    )
    assert world.one(late) == 0
    charged = int(str(world.one("SELECT SUM(amount_micros) FROM audit_event")))
    undone = int(str(world.one("SELECT COALESCE(SUM(amount_micros), 0) FROM findings")))
    revenue = int(str(world.one("SELECT -posted_micros FROM audit_balance WHERE account = 'revenue:media'")))
    assert revenue == charged - undone
    world.must_be_sound()


@pytest.fixture
def shop(world: World) -> World:
    made = World(world.database, STRICT)
    a_month(made)
    made.clock.at_ms = NOON_MS
    return made


def test_each_rule_is_found_and_undone_with_its_name_and_version(shop: World) -> None:
    shop.clock.at_ms = NOON_MS - DAY_MS
    sends(shop, bytes(range(16)), 40, 60_000)  # by the clock, and slower than a flood
    sends(shop, bytes(range(1, 17)), 3, 5_000, product_id="same", campaign_id="cmp-3", charge_on=ChargeOn.CLICK)
    shop.writer = shop.new_writer()  # which knows nothing of the one before
    sends(shop, bytes(range(1, 17)), 1, 5_000, product_id="same", campaign_id="cmp-3", charge_on=ChargeOn.CLICK)
    shop.clock.at_ms = NOON_MS
    assert inspect(shop) > 0
    reasons = {str(reason) for (reason,) in shop.rows("SELECT reason FROM audit_entry WHERE reason LIKE 'invalid:%'")}
    assert reasons <= {f"invalid:{rule}:{version}" for rule, version in RULES.items()}
    assert {reason.split(":")[1] for reason in reasons} == {"flood", "swept_page", "regular_clicks", "repeated_click"}
    gross_is_valid_plus_invalid(shop)
    nothing_is_undone_twice_or_too_late(shop)


def test_the_pass_run_again_changes_nothing(shop: World) -> None:
    assert inspect(shop) > 0
    before = shop.rows("SELECT COUNT(*), MAX(seq) FROM entries")
    assert inspect(shop) == 0
    portions = shop.database.read(lambda c: list(inspection.inspect_period(c, RETAILER, MONTH, STRICT, shop.clock())))
    answer, moved = shop.writer.command(ReverseInvalid([one for some in portions for one in some]))
    assert (answer.event_count, answer.amount_micros, moved.funds) == (0, 0, [])  # type: ignore[union-attr]
    assert shop.rows("SELECT COUNT(*), MAX(seq) FROM entries") == before


def test_what_finance_undid_by_hand_is_not_undone_again(shop: World) -> None:
    from ledger.command import Reverse

    (portion, *_) = shop.database.read(lambda c: find_new(c, RETAILER, MONTH, STRICT, shop.clock()))
    charged = [
        str(name) for one in portion
        for (name,) in shop.rows(f"SELECT transaction_id FROM events WHERE seq = {one.event_seq}") if name is not None
    ]  # fmt: skip
    shop.writer.command(Reverse(charged[0], "complained of"))
    inspect(shop)
    nothing_is_undone_twice_or_too_late(shop)
    assert shop.one(f"SELECT COUNT(*) FROM findings f JOIN reversals r ON r.transaction_id = f.transaction_id "
                    f"WHERE r.reverses = '{charged[0]}'") == 1  # fmt: skip


def test_a_sealed_month_stays_as_it_is(shop: World) -> None:
    (portion, *_) = shop.database.read(lambda c: find_new(c, RETAILER, MONTH, STRICT, shop.clock()))
    shop.clock.at_ms = IN_DECEMBER_MS
    for stage in ("soft", "sealed"):
        shop.writer.command(ClosePeriod(MONTH, stage))  # type: ignore[arg-type]
    with pytest.raises(ConflictRefused) as refused:
        shop.writer.command(ReverseInvalid(portion))
    assert refused.value.code == "period_sealed"
    assert shop.one("SELECT COUNT(*) FROM findings") == 0
    assert inspect(shop) == 0
    nothing_is_undone_twice_or_too_late(shop)


def test_only_what_was_softly_closed_is_undone_before_sealing(shop: World) -> None:
    def before_seal() -> list[Any]:
        return shop.database.read(lambda c: find_before_seal(c, RETAILER, MONTH, STRICT, shop.clock()))

    assert before_seal() == []
    shop.clock.at_ms = IN_DECEMBER_MS
    shop.writer.command(ClosePeriod(MONTH, "soft"))
    assert before_seal() != []


def test_closing_a_month_undoes_what_was_invalid_in_it(shop: World) -> None:
    close = "/v1/ledger/periods/2026-11/close"
    with open_site(shop) as site:
        assert site.post(close, {"stage": "sealed"}, "finance")[1]["code"] == "period_not_soft"
        assert shop.one("SELECT COUNT(*) FROM findings") == 0
        shop.clock.at_ms = IN_DECEMBER_MS
        assert site.post(close, {"stage": "soft"}, "finance")[0] == 200
        found = shop.one("SELECT COUNT(*) FROM findings")
        assert isinstance(found, int)
        assert found > 50
        shop.clock.pass_ms(1_000)
        assert site.post(close, {"stage": "sealed"}, "finance")[0] == 200
        assert site.post(close, {"stage": "sealed"}, "finance")[0] == 200
    assert shop.one("SELECT COUNT(*) FROM findings") == found
    gross_is_valid_plus_invalid(shop)
    nothing_is_undone_twice_or_too_late(shop)


def test_days_that_are_not_over_and_traffic_nobody_asked_about_are_left_alone(shop: World) -> None:
    shop.clock.at_ms = NOON_MS - DAY_MS
    days = shop.database.read(lambda c: list(inspection.inspect_period(c, RETAILER, MONTH, STRICT, shop.clock())))
    assert len(days) == 1
    assert shop.database.read(lambda c: find_new(c, RETAILER, MONTH, Settings(), IN_DECEMBER_MS)) == []


def test_an_invalid_click_brings_no_sales(shop: World) -> None:
    everything = (RETAILER, 0, IN_DECEMBER_MS, INVALID_CODES)
    before = {row.token_id for row in shop.database.read(lambda c: store.read_touches(c, *everything))}
    inspect(shop)
    after = {row.token_id for row in shop.database.read(lambda c: store.read_touches(c, *everything))}
    found = {name for (name,) in shop.rows("SELECT token_id FROM events e JOIN findings f ON f.event_seq = e.seq")}
    assert before - after == before & found
    assert before & found


# --- faults planted, which the checks above must catch


def forget_what_was_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pass that does not know of the one before: nothing asks, and nothing refuses."""
    read_charges = store.read_charges
    monkeypatch.setattr(store, "read_found", lambda *_: set())

    def never_reversed(*asked: Any) -> list[Any]:
        from types import SimpleNamespace

        return [SimpleNamespace(**{**row._mapping, "reversed_by": None}) for row in read_charges(*asked)]

    monkeypatch.setattr(store, "read_charges", never_reversed)
    monkeypatch.setattr(store, "insert_reversal", lambda *_: None)
    monkeypatch.setattr(store, "insert_findings", lambda *_: None)


def test_a_pass_that_posts_twice_is_caught(shop: World, monkeypatch: pytest.MonkeyPatch) -> None:
    forget_what_was_found(monkeypatch)
    assert inspect(shop) > 0
    assert inspect(shop) > 0
    with pytest.raises(AssertionError):
        nothing_is_undone_twice_or_too_late(shop)


def test_a_reversal_after_the_seal_is_caught(shop: World, monkeypatch: pytest.MonkeyPatch) -> None:
    shop.clock.at_ms = IN_DECEMBER_MS
    for stage in ("soft", "sealed"):
        shop.writer.command(ClosePeriod(MONTH, stage))  # type: ignore[arg-type]
    monkeypatch.setattr(store, "last_sealed", lambda *_: "")
    assert inspect(shop) > 0
    monkeypatch.undo()
    with pytest.raises(AssertionError):
        nothing_is_undone_twice_or_too_late(shop)


def test_a_report_that_forgets_what_was_found_is_caught(shop: World, monkeypatch: pytest.MonkeyPatch) -> None:
    inspect(shop)
    sum_events = store.sum_events
    monkeypatch.setattr(
        store, "sum_events", lambda *a: [(*row[:6], 0, row[7]) for row in sum_events(*a)]
    )  # fmt: skip
    with pytest.raises(AssertionError):
        gross_is_valid_plus_invalid(shop)


# --- always


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 2**32), kills=st.lists(st.tuples(st.integers(0, 12), st.booleans()), max_size=4))
def test_gross_is_valid_plus_invalid_whatever_comes_and_whenever_the_pass_is_killed(
    migrated_file: Path, seed: int, kills: list[tuple[int, bool]]
) -> None:
    """Each kill ends a run at its n-th commit: before it, or after it and before anybody heard of it."""
    folder = Path(tempfile.mkdtemp())
    shutil.copy(migrated_file, folder / "endcap.db")
    database = open_database(f"sqlite:///{folder}/endcap.db")
    portion, inspection.FINDING_COUNT_MAX = inspection.FINDING_COUNT_MAX, random.Random(seed).randint(3, 30)
    try:
        world = World(database, STRICT, seed)
        a_month(world)
        world.clock.at_ms = NOON_MS
        for number, is_after in kills:
            world.writer._transact = killing(database.transact, number, is_after)
            with contextlib.suppress(Killed):
                inspect(world)
            world.writer = world.new_writer()
            gross_is_valid_plus_invalid(world)
            nothing_is_undone_twice_or_too_late(world)
        inspect(world)
        assert inspect(world) == 0
        gross_is_valid_plus_invalid(world)
        nothing_is_undone_twice_or_too_late(world)
    finally:
        inspection.FINDING_COUNT_MAX = portion
        database.close()
        shutil.rmtree(folder)


def killing(transact: Callable[[Any], Any], number: int, is_after: bool) -> Callable[[Any], Any]:
    left = [number]

    def until_killed(work: Callable[[Any], Any]) -> Any:
        def killed_within(connection: Any) -> Any:
            done = work(connection)
            if left[0] == 0 and not is_after:
                raise Killed
            return done

        done = transact(killed_within)
        if left[0] == 0 and is_after:
            raise Killed
        left[0] -= 1
        return done

    return until_killed
