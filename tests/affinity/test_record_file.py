"""The record file and the log's tail are the whole log; what does not fit, or names who was erased, is not used."""

import errno
import os
import random
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from affinity.catalog import Product
from affinity.navigation import Action, NavigationBatch, NavigationEvent
from affinity.navigation_log import NavigationLog
from affinity.profile import ProfileDraft
from affinity.pseudonym import Pseudonymizer
from affinity.record import read_facts
from affinity.record_file import draft_of
from affinity.settings import Settings
from affinity.visitors import VisitorStore

NOW_MS = 1_700_000_000_000
PRODUCTS = [
    Product(product_id=f"p{row}", brand=f"B{row % 3}", product_type=f"A > C{row % 4}", price_micros=5)
    for row in range(9)
]
FACTS = read_facts(PRODUCTS)
VISITOR_COUNT = 12
SEGMENT_BYTES = 4_000


class Shop:
    """A data folder, and the visitors as a process would have them that starts on it now."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / "visitors.records"
        self.chance = random.Random(1)
        self.event_count = 0

    def visitors(self, facts: object = FACTS, **settings: int) -> VisitorStore:
        log = NavigationLog(self.folder / "navigation", SEGMENT_BYTES)
        return VisitorStore(
            Settings(visitor_ready_count_max=3, **settings),
            Pseudonymizer(b"k" * 32),
            log,
            facts,  # type: ignore[arg-type]
            self.path,
        )

    def started(self, **settings: int) -> tuple[VisitorStore, int]:
        visitors = self.visitors(**settings)
        return visitors, visitors.load(NOW_MS)

    def post(self, visitors: VisitorStore, count: int) -> None:
        for _ in range(count):
            visitors.post(NavigationBatch(events=[self.event()]), NOW_MS)

    def event(self, number: int | None = None) -> NavigationEvent:
        if number is None:
            number = self.event_count
            self.event_count += 1
        chance = random.Random(number)
        return NavigationEvent(
            visitor_id=f"v{chance.randrange(VISITOR_COUNT)}",
            action=chance.choice([Action.VIEW_ITEM, Action.PURCHASE, Action.DISMISS, Action.SEARCH]),
            occurred_at=datetime.fromtimestamp(NOW_MS / 1000 - chance.randrange(5_000), UTC),
            event_id=f"e{number}",
            product_id=f"p{chance.randrange(9)}",
            query=chance.choice([None, "red shoe"]),
        )


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return Shop(tmp_path)


def state(visitors: VisitorStore) -> object:
    """Return everything that must be equal between two stores of the same past."""
    found = {}
    for pseudonym in sorted(visitors.records):
        record = visitors.records.peek(pseudonym)
        assert record is not None
        found[pseudonym] = (
            record.events,
            record.session_began_ms,
            record.category_weight,
            record.brand_weight,
            record.bought_product,
            record.purchases,
            list(record.dismissed),
            record.served_at_ms,
            {name: (one.at_ms, one.clicked_at_ms) for name, one in record.shown.items()},
            record.unrendered,
        )
    return found, set.union(*visitors._events_seen)


def whole_log(shop: Shop) -> object:
    """Return the state of a store that has read the whole log and no record file."""
    visitors = VisitorStore(
        Settings(), Pseudonymizer(b"k" * 32), NavigationLog(shop.folder / "navigation", SEGMENT_BYTES), FACTS
    )
    visitors.load(NOW_MS)
    return state(visitors)


def test_a_start_reads_the_file_and_the_logs_tail_only(shop: Shop) -> None:
    visitors, _ = shop.started()
    shop.post(visitors, 300)
    assert visitors.keep(NOW_MS)
    assert visitors.unkept_count == 0
    shop.post(visitors, 25)  # and then the process is killed
    again, count = shop.started()
    assert again.record_file_refusal is None
    assert count == 25
    assert state(again) == state(visitors) == whole_log(shop)
    assert again.scale == visitors.scale or visitors.measure() is None
    assert again.scale == visitors.scale
    known = again.post(NavigationBatch(events=[shop.event(number) for number in range(325)]), NOW_MS)
    assert (known.recorded, known.duplicates) == (0, 325)


def test_a_start_after_a_clean_stop_reads_nothing_of_the_log(shop: Shop) -> None:
    visitors, _ = shop.started()
    shop.post(visitors, 100)
    visitors.keep(NOW_MS)
    again, count = shop.started()
    assert count == 0
    assert list(again.records) == list(visitors.records)  # who was seen least recently goes first in both
    shop.post(again, 10)
    again.keep(NOW_MS)
    third, count = shop.started()
    assert count == 0
    assert state(third) == whole_log(shop)


def test_fills_that_were_not_logged_yet_count_once(shop: Shop) -> None:
    visitors, _ = shop.started()
    shop.post(visitors, 30)
    who = visitors.pseudonym("v1")
    visitors.note_served(who, "bid_1", NOW_MS, "top", 1)
    visitors.keep(NOW_MS)
    visitors.note_served(who, "bid_1", NOW_MS + 5, "top", 2)
    visitors.note_clicked(who, "top", NOW_MS + 6)
    visitors.flush(NOW_MS)
    again, count = shop.started()
    assert count == 2
    record = again.record(who)
    assert record is not None
    assert record.served_at_ms == {"bid_1": [NOW_MS, NOW_MS + 5]}
    assert state(again) == whole_log(shop)


def test_what_changes_while_the_file_is_written_counts_once(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("affinity.record_file.STEP_COUNT", 2)
    visitors, _ = shop.started()
    shop.post(visitors, 200)
    keeping = visitors.begin_keeping(NOW_MS)
    assert keeping is not None
    while keeping.step():
        shop.post(visitors, 15)
    keeping.sync()
    shop.post(visitors, 5)
    assert keeping.finish()
    again, count = shop.started()
    assert again.record_file_refusal is None
    assert count > 50
    assert state(again) == state(visitors) == whole_log(shop)


def test_names_that_get_a_number_while_the_file_is_written_are_in_it(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("affinity.record_file.STEP_COUNT", 1)
    facts = dict(FACTS)
    visitors = shop.visitors(facts)
    visitors.load(NOW_MS)
    at = datetime.fromtimestamp(NOW_MS / 1000, UTC)

    def post(visitor_id: str, **what: str) -> None:
        event = NavigationEvent(visitor_id=visitor_id, action=Action.VIEW_ITEM, occurred_at=at, **what)  # type: ignore[arg-type]
        visitors.post(NavigationBatch(events=[event]), NOW_MS)

    post("first", product_id="p1")
    post("second", category_id="Z > Y")  # a category no product had so far
    keeping = visitors.begin_keeping(NOW_MS)
    assert keeping is not None
    keeping.step()
    facts["pz"] = FACTS["p1"]._replace(category_id="Z > Y")
    post("third", product_id="pz")
    while keeping.step():
        pass
    keeping.sync()
    keeping.finish()
    again = shop.visitors(FACTS)  # the product is gone again, so the log's tail says nothing of its category
    assert again.load(NOW_MS) == 1
    record = again.record(again.pseudonym("second"))
    assert record is not None
    assert [one.category_id for one in record.events] == ["Z > Y"]


def test_a_kill_while_the_file_is_written_leaves_the_one_before(shop: Shop) -> None:
    visitors, _ = shop.started()
    shop.post(visitors, 50)
    visitors.keep(NOW_MS)
    shop.post(visitors, 10)
    keeping = visitors.begin_keeping(NOW_MS)
    assert keeping is not None
    keeping.step()
    assert draft_of(shop.path).exists()
    again, count = shop.started()
    assert count == 10
    assert state(again) == whole_log(shop)
    keeping.abandon()
    assert not draft_of(shop.path).exists()


def test_imports_are_read_once_whether_before_or_after(shop: Shop) -> None:
    visitors, _ = shop.started()
    shop.post(visitors, 20)
    assert visitors.log is not None
    for label in ("before", "after"):
        lines = [visitors.line_of(shop.event(), NOW_MS - 10**8 - shop.event_count) for _ in range(40)]
        visitors.log.write_import(lines, NOW_MS, label)
        if label == "before":
            visitors.follow(10, NOW_MS)
            assert visitors.begin_keeping(NOW_MS) is None  # half an import is no moment one can name
            visitors.follow(1_000, NOW_MS)
            assert visitors.keep(NOW_MS)
    again, count = shop.started()
    assert count == 40
    assert visitors.follow(1_000, NOW_MS) == 40
    assert state(again) == state(visitors)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-9])


def cut_between_frames(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-8])


def turn_a_bit(path: Path) -> None:
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    path.write_bytes(bytes(raw))


@pytest.mark.parametrize("damage", [cut, cut_between_frames, turn_a_bit, lambda path: path.write_bytes(b"")])
def test_a_damaged_file_is_refused_and_the_log_read(shop: Shop, damage: Callable[[Path], None]) -> None:
    visitors, _ = shop.started()
    shop.post(visitors, 200)
    visitors.keep(NOW_MS)
    damage(shop.path)
    again, count = shop.started()
    assert again.record_file_refusal is not None
    assert count == 200
    assert state(again) == whole_log(shop)


@pytest.mark.parametrize("setting", ["session_gap_s", "visitor_event_count_max", "interest_half_life_s"])
def test_a_file_written_under_other_settings_is_refused(shop: Shop, setting: str) -> None:
    visitors, _ = shop.started()
    shop.post(visitors, 20)
    visitors.keep(NOW_MS)
    again, count = shop.started(**{setting: 77})
    assert again.record_file_refusal is not None
    assert count == 20


def test_a_file_of_another_format_is_refused(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    visitors, _ = shop.started()
    shop.post(visitors, 20)
    visitors.keep(NOW_MS)
    monkeypatch.setattr("affinity.record_file.FORMAT", 99)
    again, count = shop.started()
    assert again.record_file_refusal is not None
    assert "99" in again.record_file_refusal
    assert count == 20


def test_products_that_changed_or_are_known_now_have_the_log_read_again(shop: Shop) -> None:
    visitors, _ = shop.started()
    shop.post(visitors, 50)
    visitors.keep(NOW_MS)
    moved = {**FACTS, "p1": FACTS["p1"]._replace(category_id="A > Moved")}
    again = shop.visitors(moved)
    assert again.load(NOW_MS) == 50
    assert again.record_file_refusal is not None
    dearer = {**FACTS, "p1": FACTS["p1"]._replace(price_micros=99), "new": FACTS["p2"]}
    assert shop.visitors(dearer).load(NOW_MS) == 0


# --- erasure -----------------------------------------------------------------------------------------------------


def bytes_on_disk(shop: Shop) -> bytes:
    return b"".join(path.read_bytes() for path in shop.folder.rglob("*") if path.is_file())


def test_who_is_forgotten_is_in_no_file_at_once_and_in_none_written_later(shop: Shop) -> None:
    visitors, _ = shop.started()
    shop.post(visitors, 100)
    who = visitors.pseudonym("v3")
    visitors.keep(NOW_MS)
    assert who in shop.path.read_bytes()
    visitors.forget([who])
    assert not shop.path.exists()
    assert not visitors.has_record_file()
    assert visitors.unkept_count > 0
    assert visitors.log is not None
    visitors.log.rotate()
    visitors.log.erase([who])
    assert visitors.keep(NOW_MS)
    assert who not in shop.path.read_bytes()
    again, count = shop.started()
    assert count == 0
    assert again.record(who) is None
    assert state(again) == state(visitors)


def test_navigation_that_may_no_longer_be_kept_is_in_no_file_and_does_not_come_back(shop: Shop) -> None:
    visitors, _ = shop.started()
    shop.post(visitors, 300)
    assert visitors.keep(NOW_MS)
    cutoff_ms = NOW_MS - 2_000_000
    for pseudonym in visitors.records:
        record = visitors.records.peek(pseudonym)
        assert record is not None
        assert record.events[0].at_ms < cutoff_ms
    assert visitors.log is not None
    visitors.log.rotate()
    visitors.log.drop_before(cutoff_ms)
    for _ in visitors.drop_before(cutoff_ms):
        assert visitors.keep(NOW_MS)
    assert not visitors.has_record_file()
    assert visitors.keep(NOW_MS)
    again, _ = shop.started()
    assert again.record_file_refusal is None
    for store in (visitors, again):
        assert len(store) == VISITOR_COUNT
        for pseudonym in store.records:
            record = store.records.peek(pseudonym)
            assert record is not None
            assert record.events[0].at_ms >= cutoff_ms
            assert min(record.bought_product.values(), default=cutoff_ms) >= cutoff_ms


def test_a_draft_a_killed_process_left_goes_with_who_is_in_it(shop: Shop) -> None:
    killed, _ = shop.started()
    shop.post(killed, 100)
    keeping = killed.begin_keeping(NOW_MS)
    assert keeping is not None
    while keeping.step():
        pass
    visitors, _ = shop.started()
    who = visitors.pseudonym("v3")
    visitors.forget([who])
    assert not draft_of(shop.path).exists()
    keeping.abandon()


@pytest.mark.parametrize("is_syncing", [False, True])
def test_a_file_being_written_is_given_up_when_somebody_is_forgotten(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, is_syncing: bool
) -> None:
    visitors, _ = shop.started()
    shop.post(visitors, 100)
    who = visitors.pseudonym("v3")
    keeping = visitors.begin_keeping(NOW_MS)
    assert keeping is not None
    keeping.step()
    if is_syncing:
        while keeping.step():
            pass
        assert visitors.log is not None

        def forget_midway(_: int) -> None:
            visitors.forget([who])

        monkeypatch.setattr(os, "fsync", forget_midway)
    else:
        visitors.forget([who])
    assert not keeping.step()
    keeping.sync()
    assert not keeping.finish()
    monkeypatch.undo()
    assert sorted(path.name for path in shop.folder.iterdir()) == ["navigation"]


def test_a_log_that_was_rewritten_before_the_position_is_noticed(shop: Shop) -> None:
    visitors, _ = shop.started()
    shop.post(visitors, 5)
    who = visitors.pseudonym(shop.event(0).visitor_id)
    visitors.keep(NOW_MS)
    visitors.log.rotate()  # type: ignore[union-attr]
    kept = shop.path.read_bytes()
    NavigationLog(shop.folder / "navigation", SEGMENT_BYTES).erase([who])
    shop.path.write_bytes(kept)
    again, _ = shop.started()
    assert again.record_file_refusal is not None
    assert again.record(who) is None


# --- the disk ----------------------------------------------------------------------------------------------------


def test_a_full_disk_leaves_the_file_before_and_says_so(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    visitors, _ = shop.started()
    shop.post(visitors, 50)
    visitors.keep(NOW_MS)
    before = shop.path.read_bytes()
    shop.post(visitors, 50)

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        visitors.keep(NOW_MS)
    monkeypatch.undo()
    assert shop.path.read_bytes() == before
    assert not draft_of(shop.path).exists()
    again, count = shop.started()
    assert count == 50
    assert state(again) == whole_log(shop)


def test_neither_raw_ids_nor_others_may_read_them(shop: Shop) -> None:
    visitors, _ = shop.started()
    visitors.put_profile(visitors.pseudonym("visitor-secret-1"), ProfileDraft(segments=["vip-secret"]))
    event = NavigationEvent(
        visitor_id="visitor-secret-1",
        action=Action.VIEW_ITEM,
        occurred_at=datetime.fromtimestamp(NOW_MS / 1000, UTC),
        event_id="event-secret-1",
        product_id="p1",
    )
    visitors.post(NavigationBatch(events=[event]), NOW_MS)
    visitors.keep(NOW_MS)
    assert visitors.pseudonym("visitor-secret-1") in bytes_on_disk(shop)
    assert b"secret" not in bytes_on_disk(shop)
    assert shop.path.stat().st_mode & 0o077 == 0
