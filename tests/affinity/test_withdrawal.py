"""Consent withdrawn: nothing is known from then on, and what was written follows; navigation too old to be kept."""

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from affinity import store as tables
from affinity.audience import Audience
from affinity.erasure import Elsewhere, Eraser
from affinity.errors import ConsentUnreadable
from affinity.model import neutral_model
from affinity.navigation import Action, Consent, ConsentSignal, NavigationBatch, NavigationEvent
from affinity.navigation_log import WITHDRAWN, LogLine, NavigationLog
from affinity.pattern import NavigationPattern, PatternStep
from affinity.profile import ProfileDraft
from affinity.pseudonym import Pseudonymizer
from affinity.record import read_facts
from affinity.settings import Settings
from affinity.targets import compile_targets, has_bit
from affinity.visitors import VisitorStore
from bidder_api.database import Database
from tests.affinity.test_visitors import PRODUCTS, state

NOW_MS = 1_700_000_000_000
DAY_MS = 86_400_000
YES, NO = Consent(personalised=True), Consent(personalised=False)
TARGETS = compile_targets(
    [Audience(segment="vip")], [NavigationPattern(within=86_400, steps=[PatternStep(action=Action.VIEW_ITEM)])]
)
MODEL = neutral_model([product.product_id for product in PRODUCTS])
R = "shop"


def make(folder: Path | None = None, **settings: object) -> VisitorStore:
    log = None if folder is None else NavigationLog(folder, 100_000)
    return VisitorStore(Settings(**settings), Pseudonymizer(b"k" * 32), log, read_facts(PRODUCTS))  # type: ignore[arg-type]


def post(
    visitors: VisitorStore,
    *visitor_ids: str,
    consent: ConsentSignal | None = None,
    at_ms: int = NOW_MS,
    now_ms: int = NOW_MS,
    **more: object,
) -> int:
    at = datetime.fromtimestamp(at_ms / 1000, UTC)
    events = [
        NavigationEvent(visitor_id=one, action=Action.VIEW_ITEM, occurred_at=at, **{"product_id": "p1", **more})  # type: ignore[arg-type]
        for one in visitor_ids
    ]
    return visitors.post(NavigationBatch(events=events, consent=consent), now_ms).recorded


def knows(visitors: VisitorStore, visitor_id: str, consent: ConsentSignal = YES) -> bool:
    view = visitors.view(visitor_id, consent, TARGETS, MODEL, NOW_MS)
    return has_bit(view.pattern_bits, 0) or has_bit(view.audience_bits, 0)


def lines(visitors: VisitorStore) -> list[LogLine]:
    assert visitors.log is not None
    return [line for name in visitors.log.segments() for line in visitors.log.read(name)]


def erase(visitors: VisitorStore, database: Database) -> int:
    eraser = Eraser(visitors, database.transact, R, Elsewhere())
    return asyncio.run(eraser.finish_withdrawals())


def test_consent_comes_as_an_object_or_a_tc_string_and_silence_beside_events_is_consent() -> None:
    visitors = make(tcf_purposes="1")
    yes = "COtybn4PA_zT4KjACBENAPCIAEBAAECAAIAAAAAAAAAA"  # purpose 1 need not be asked for in the publisher's country
    assert [post(visitors, "v", consent=one) for one in (None, YES, yes)] == [1, 1, 1]
    assert knows(visitors, "v", yes)
    assert not make(tcf_purposes="1,3")._consents.allows(yes)
    for bad in ("yes", "COtybn4PA_zT4KjACBENAPCI"):
        with pytest.raises(ConsentUnreadable):
            post(visitors, "v", consent=bad)
        with pytest.raises(ConsentUnreadable):
            visitors.view("v", bad, TARGETS, MODEL, NOW_MS)
    assert knows(visitors, "v")


def test_a_refusal_forgets_at_once_and_a_later_consent_begins_anew(tmp_path: Path) -> None:
    visitors = make(tmp_path)
    post(visitors, "v", "w")
    visitors.put_profile(visitors.pseudonym("v"), ProfileDraft(segments=["vip"]))
    assert knows(visitors, "v")
    assert post(visitors, "v", consent=NO) == 0
    assert not knows(visitors, "v")
    assert knows(visitors, "w")
    post(visitors, "v", product_id="p2")
    record = visitors.record(visitors.pseudonym("v"))
    assert record is not None
    assert [one.product_id for one in record.events] == ["p2"]


def test_a_start_after_a_refusal_knows_no_more_than_before(tmp_path: Path, sqlite_database: Database) -> None:
    visitors = make(tmp_path / "log")
    post(visitors, "v", "w")
    post(visitors, "v", consent=NO)
    post(visitors, "v", product_id="p2")
    again = make(tmp_path / "log")
    again.load(NOW_MS)
    for one in ("v", "w"):
        assert state(again.record(again.pseudonym(one))) == state(visitors.record(visitors.pseudonym(one)))
    assert again.withdrawn == {again.pseudonym("v")}  # and finishes what the other did not


def test_what_was_written_before_the_refusal_goes_and_what_came_after_stays(
    tmp_path: Path, sqlite_database: Database
) -> None:
    visitors = make(tmp_path / "log")
    me, other = visitors.pseudonym("v"), visitors.pseudonym("w")
    sqlite_database.transact(lambda c: tables.put_profile(c, R, me, ProfileDraft(segments=["vip"]), 1))
    sqlite_database.transact(lambda c: tables.put_profile(c, R, other, ProfileDraft(segments=["vip"]), 1))
    visitors.put_profiles(
        (row.pseudonym, row.profile) for row in sqlite_database.read(lambda c: tables.read_profiles(c, R))
    )
    post(visitors, "v", "w", "v")
    assert visitors.log is not None
    visitors.log.rotate()
    post(visitors, "v", "w", product_id=WITHDRAWN)  # a product may be called anything
    post(visitors, "v", consent=NO)
    post(visitors, "v", product_id="p2")
    assert erase(visitors, sqlite_database) == 1
    assert [(one.pseudonym, one.product_id) for one in lines(visitors)] == [
        (other, "p1"),
        (other, WITHDRAWN),
        (me, "p2"),
    ]
    assert [row.pseudonym for row in sqlite_database.read(lambda c: tables.read_profiles(c, R))] == [other]
    assert erase(visitors, sqlite_database) == 0


def test_a_refusal_on_a_page_waits_for_the_log_and_is_not_lost_when_the_log_is_full(
    tmp_path: Path, sqlite_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    visitors = make(tmp_path / "log")
    post(visitors, "v")
    assert visitors.withdraw(visitors.pseudonym("v"), NOW_MS)
    assert not knows(visitors, "v")
    assert erase(visitors, sqlite_database) == 0  # its line is not in the log yet
    visitors.flush(NOW_MS)
    eraser = Eraser(visitors, sqlite_database.transact, R, Elsewhere())
    with monkeypatch.context() as broken:
        broken.setattr(NavigationLog, "erase_withdrawn", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            asyncio.run(eraser.finish_withdrawals())
    assert visitors.withdrawn == {visitors.pseudonym("v")}
    assert erase(visitors, sqlite_database) == 1
    assert lines(visitors) == []


def test_a_refusal_of_somebody_unknown_leaves_no_trace(tmp_path: Path) -> None:
    visitors = make(tmp_path)
    assert post(visitors, "v", consent=NO) == 0
    assert not visitors.withdraw(visitors.pseudonym("v"), NOW_MS)
    assert (len(visitors), visitors.withdrawn, list(tmp_path.iterdir())) == (0, set(), [])


def test_a_device_that_withdraws_leaves_its_customer_and_a_customer_takes_the_devices_along() -> None:
    visitors = make()
    phone, laptop, customer = (visitors.pseudonym(one) for one in ("phone", "laptop", "customer"))
    for device in (phone, laptop):
        visitors.link(device, customer)
    post(visitors, "phone", "laptop")
    visitors.withdraw(phone, NOW_MS)
    assert not knows(visitors, "phone")
    assert knows(visitors, "laptop")
    assert visitors.devices(laptop) == [laptop, customer]
    visitors.withdraw(customer, NOW_MS)
    assert not knows(visitors, "laptop")
    assert visitors.devices(laptop) == [laptop]


def test_whoever_holds_a_sites_key_cannot_have_customers_forgotten() -> None:
    visitors = make()
    for one in ("phone", "crm", "cookie"):
        post(visitors, one)
    visitors.link(visitors.pseudonym("phone"), visitors.pseudonym("customer"))
    visitors.put_profile(visitors.pseudonym("crm"), ProfileDraft(segments=["vip"]))
    for one in ("customer", "crm", "cookie"):
        visitors.withdraw(visitors.pseudonym(one), NOW_MS, is_trusted=False)
    assert [knows(visitors, one) for one in ("phone", "crm", "cookie")] == [True, True, False]


# --- retention ---------------------------------------------------------------------------------------------------


def test_navigation_older_than_it_may_be_kept_goes_from_memory_as_if_it_had_never_been(tmp_path: Path) -> None:
    visitors, fresh = make(event_lateness_s=10**9, retention_days=30), make(event_lateness_s=10**9)
    old_ms, young_ms = NOW_MS - 31 * DAY_MS, NOW_MS - 29 * DAY_MS
    post(visitors, "v", "gone", at_ms=old_ms)
    for one in (visitors, fresh):
        post(one, "v", at_ms=young_ms, product_id="p2")
    pseudonym = visitors.pseudonym("v")
    visitors.note_served(pseudonym, "bid", old_ms, "top", 1)
    for one in (visitors, fresh):
        one.note_served(pseudonym, "bid", young_ms, "top", 1)
    list(visitors.drop_before(visitors.oldest_kept_ms(NOW_MS)))
    assert state(visitors.record(pseudonym)) == state(fresh.record(pseudonym))
    assert visitors.record(visitors.pseudonym("gone")) is None
    assert visitors.oldest_kept_ms(NOW_MS) == NOW_MS - 30 * DAY_MS
    assert fresh.oldest_kept_ms(NOW_MS) == 0


def test_purchases_of_long_ago_go_with_the_last_of_them() -> None:
    visitors = make(event_lateness_s=10**9, retention_days=30)
    at = datetime.fromtimestamp(NOW_MS / 1000, UTC)

    def buy(days_ago: int) -> None:
        bought = NavigationEvent(
            visitor_id="v", action=Action.PURCHASE, product_id="p1", occurred_at=at - timedelta(days=days_ago)
        )
        visitors.post(NavigationBatch(events=[bought]), NOW_MS)

    buy(40)
    buy(10)
    record = visitors.record(visitors.pseudonym("v"))
    assert record is not None
    list(visitors.drop_before(NOW_MS - 30 * DAY_MS))
    assert (record.purchases.order_count, list(record.bought_product)) == (2, ["p1"])
    list(visitors.drop_before(NOW_MS - 5 * DAY_MS))
    assert visitors.record(visitors.pseudonym("v")) is None


def test_a_start_does_not_take_in_what_may_no_longer_be_kept(tmp_path: Path) -> None:
    visitors = make(tmp_path, event_lateness_s=10**9)
    post(visitors, "v", at_ms=NOW_MS - 31 * DAY_MS)
    post(visitors, "v", at_ms=NOW_MS - 29 * DAY_MS)
    again = make(tmp_path, retention_days=30)
    again.load(NOW_MS)
    record = again.record(again.pseudonym("v"))
    assert record is not None
    assert len(record.events) == 1


def test_a_profile_of_somebody_who_withdrew_does_not_come_back_from_the_database(
    tmp_path: Path, sqlite_database: Database
) -> None:
    visitors = make(tmp_path / "log")
    me = visitors.pseudonym("v")
    sqlite_database.transact(lambda c: tables.put_profile(c, R, me, ProfileDraft(segments=["vip"]), 1))
    kept = [(row.pseudonym, row.profile) for row in sqlite_database.read(lambda c: tables.read_profiles(c, R))]
    visitors.put_profiles(kept)
    post(visitors, "v", consent=NO)
    visitors.put_profiles(kept)  # as a look at the database finds it until it is deleted there
    assert not knows(visitors, "v")
    visitors.withdrawn.clear()
    visitors.put_profiles(kept)
    visitors.withdrawn.add(me)
    assert erase(visitors, sqlite_database) == 1
    assert not knows(visitors, "v")


def test_who_was_no_longer_in_memory_when_they_refused_is_taken_out_of_the_log_too(
    tmp_path: Path, sqlite_database: Database
) -> None:
    visitors = make(tmp_path / "log", visitor_count_max=2)
    post(visitors, "stays-away", "comes-back", "shown", "others", "fill")  # the first three have left memory
    names = ("stays-away", "comes-back", "shown", "never-seen")
    for one in names:
        assert not visitors.withdraw(visitors.pseudonym(one), NOW_MS)
    post(visitors, "comes-back", product_id="p2")
    visitors.note_served(visitors.pseudonym("shown"), "bid", NOW_MS, "top", 1)
    visitors.flush(NOW_MS)
    again = make(tmp_path / "log")
    again.load(NOW_MS)
    record = again.record(again.pseudonym("comes-back"))
    assert record is not None
    assert [one.product_id for one in record.events] == ["p2"]

    assert erase(visitors, sqlite_database) == 2
    eraser = Eraser(visitors, sqlite_database.transact, R, Elsewhere())
    assert asyncio.run(eraser.sweep_refused()) == 2
    assert asyncio.run(eraser.sweep_refused()) == 0
    left = {(line.pseudonym, line.product_id) for line in lines(visitors)}
    ours = {(visitors.pseudonym(one), product) for one, product in (("comes-back", "p2"), ("shown", "bid"))}
    assert left == ours | {(visitors.pseudonym(one), "p1") for one in ("others", "fill")}


def test_a_sweep_that_failed_is_done_the_next_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    visitors = make(tmp_path / "log", visitor_count_max=1)
    post(visitors, "v", "w")
    visitors.withdraw(visitors.pseudonym("v"), NOW_MS)
    eraser = Eraser(visitors, lambda work: None, R, Elsewhere())
    with monkeypatch.context() as broken:
        broken.setattr(NavigationLog, "erase", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            asyncio.run(eraser.sweep_refused())
    assert asyncio.run(eraser.sweep_refused()) == 1
    assert [line.pseudonym for line in lines(visitors)] == [visitors.pseudonym("w")]


def test_a_withdrawal_cut_short_is_finished_by_the_next_start(
    tmp_path: Path, sqlite_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    visitors = make(tmp_path / "log")
    me = visitors.pseudonym("v")
    sqlite_database.transact(lambda c: tables.put_profile(c, R, me, ProfileDraft(segments=["vip"]), 1))
    kept = [(row.pseudonym, row.profile) for row in sqlite_database.read(lambda c: tables.read_profiles(c, R))]
    visitors.put_profiles(kept)
    post(visitors, "v", consent=NO)
    with monkeypatch.context() as killed:
        killed.setattr(tables, "delete_visitor", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            erase(visitors, sqlite_database)
    again = make(tmp_path / "log")
    again.put_profiles(kept)  # as a start finds them
    again.load(NOW_MS)
    assert not knows(again, "v")
    assert erase(again, sqlite_database) == 1
    assert sqlite_database.read(lambda c: tables.read_profiles(c, R)) == []
    assert lines(again) == []
