"""Visitors' records: what is packed and what waits says the same as what stands ready, in bounded memory."""

import random
import tracemalloc

import pytest

from affinity.catalog import Product
from affinity.computed import Purchases
from affinity.matching import Happening
from affinity.navigation import Action
from affinity.record import VisitorRecord, read_facts
from affinity.records import WAITING_COUNT_MAX, VisitorRecords
from affinity.settings import Settings

NOW_MS = 1_700_000_000_000
FACTS = read_facts(
    [
        Product(product_id=f"p{row}", brand=f"B{row % 3}", product_type=f"A > C{row % 4}", price_micros=5)
        for row in range(9)
    ]
)


def name(number: int) -> bytes:
    return number.to_bytes(16, "big")


def look(number: int, action: Action = Action.VIEW_ITEM) -> Happening:
    product_id = f"p{number % 9}"
    facts = FACTS[product_id]
    return Happening(NOW_MS + number * 1000, action, product_id, facts.category_id, facts.brand, facts.price_micros)


def note(records: VisitorRecords, pseudonym: bytes, happening: Happening) -> None:
    assert happening.product_id is not None
    records.note(pseudonym, happening, FACTS[happening.product_id], NOW_MS)


def state(record: VisitorRecord | None) -> object:
    assert record is not None
    return (
        record.events,
        record.session_began_ms,
        record.category_weight,
        record.brand_weight,
        record.bought_product,
        record.bought_category,
        record.purchases,
        record.dismissed,
        record.served_at_ms,
        record.unrendered,
    )


@pytest.mark.parametrize("ready_count", [1, 3, 100])
def test_it_makes_no_difference_what_stands_ready(ready_count: int) -> None:
    chance = random.Random(ready_count)
    settings = Settings(visitor_ready_count_max=ready_count, visitor_event_count_max=40)
    records, plain = VisitorRecords(settings), {name(number): VisitorRecord(name(number)) for number in range(8)}
    for number in range(3_000):
        pseudonym = name(int(8 * chance.random() ** 2))
        if chance.random() < 0.05:
            records.open(pseudonym, NOW_MS).note_served("bid", NOW_MS + number, "top", 1)
            plain[pseudonym].note_served("bid", NOW_MS + number, "top", 1)
        elif chance.random() < 0.1:
            records.get(pseudonym)
        else:
            action = chance.choice([Action.VIEW_ITEM, Action.PURCHASE, Action.DISMISS])
            happening = look(number + chance.choice([0, 0, -5_000]), action)
            note(records, pseudonym, happening)
            plain[pseudonym].note(happening, FACTS[happening.product_id or ""], settings)
        if number % 100 == 0:
            peeked = records.peek(pseudonym)
            assert state(peeked) == state(plain[pseudonym])
    bought = dict(records.purchases())
    for pseudonym, record in plain.items():
        assert bought.get(pseudonym, Purchases()) == record.purchases
        assert state(records.get(pseudonym)) == state(record)
    assert len(records.ready()) <= ready_count


def test_a_profile_comes_with_every_record_that_is_made_ready() -> None:
    completed: list[bytes] = []
    records = VisitorRecords(Settings(visitor_ready_count_max=1), lambda record: completed.append(record.pseudonym))
    note(records, name(1), look(1))
    assert completed == []
    records.get(name(1))
    records.open(name(2), NOW_MS)
    records.get(name(1))
    assert completed == [name(1), name(2), name(1)]


def test_the_least_recently_seen_goes_first_by_count_and_by_bytes() -> None:
    for settings in (Settings(visitor_count_max=10), Settings(visitor_bytes_max=10 * 600)):
        records = VisitorRecords(settings)
        for number in range(50):
            note(records, name(number), look(number))
            note(records, name(0), look(number))
            records.get(name(1))  # looked at, not seen: nothing the log would tell again
        assert name(0) in records
        assert name(1) not in records
        assert list(records)[-2:] == [name(49), name(0)]
        assert 5 <= len(records) - len(records.ready()) <= 10


def test_the_bytes_counted_are_those_there_are() -> None:
    chance = random.Random(1)
    records = VisitorRecords(Settings(visitor_ready_count_max=5, visitor_count_max=50))
    for number in range(5_000):
        pseudonym = name(chance.randrange(80))
        note(records, pseudonym, look(number))
        if number % 7 == 0:
            records.get(pseudonym)
        if number % 50 == 0:
            records.pop(pseudonym)
    packed = [one for one in records._kept.values() if not isinstance(one, VisitorRecord)]
    assert records.byte_count == sum(one.byte_count() for one in packed) > 0


@pytest.mark.parametrize("is_looked_at", [True, False])
def test_one_record_has_a_hard_cap_of_bytes(is_looked_at: bool) -> None:
    settings = Settings(visitor_record_bytes_max=3_000, visitor_ready_count_max=1)
    records = VisitorRecords(settings)
    for number in range(3_000):
        long = f"{number} " + "x" * 200
        records.note(name(1), Happening(NOW_MS + number, Action.PURCHASE, long, long, None, 5), None, NOW_MS)
        if is_looked_at:
            records.get(name(1))
        elif number % 20 == 0:
            note(records, name(2), look(number))
            records.get(name(2))  # which packs the other
    packed = records.packed(name(1))
    assert packed is not None
    assert len(packed[1]) <= 3_000
    record = records.get(name(1))
    assert record is not None
    assert record.events[-1].at_ms == NOW_MS + 2_999
    assert record.purchases.amount_micros == 5 * 3_000


def test_ever_new_visitors_take_no_more_memory() -> None:
    records = VisitorRecords(Settings(visitor_count_max=2_000, visitor_ready_count_max=50))
    tracemalloc.start()
    try:
        taken = []
        for round_number in range(4):
            for number in range(4_000):
                note(records, name(round_number * 4_000 + number), look(number))
                if number % 5 == 0:
                    records.get(name(round_number * 4_000 + number))
            taken.append(tracemalloc.get_traced_memory()[0])
    finally:
        tracemalloc.stop()
    assert len(records) == 2_000
    assert taken[-1] < taken[0] * 1.2
    assert taken[-1] / len(records) < 1_500


def test_a_walk_reads_all_records_as_they_were_when_it_began() -> None:
    chance = random.Random(3)
    records = VisitorRecords(Settings(visitor_ready_count_max=4, visitor_count_max=60))
    for number in range(600):
        note(records, name(chance.randrange(50)), look(number))
        records.get(name(chance.randrange(50)))
    before = {pseudonym: records.packed(pseudonym) for pseudonym in records}
    walk, read = records.walk(), []
    while batch := walk.read(3):
        read += batch
        for _ in range(20):  # known ones change, new ones come, old ones go
            note(records, name(chance.randrange(100)), look(chance.randrange(5_000)))
            records.open(name(chance.randrange(100)), NOW_MS).note_served("bid", NOW_MS)
            records.get(name(chance.randrange(100)))
    records.end_walk()
    assert [one[0] for one in read] == list(before)
    assert read == list(before.values())
    assert records.packed(name(1)) != before[name(1)]


def test_events_wait_only_while_they_are_few() -> None:
    records = VisitorRecords(Settings())
    for number in range(WAITING_COUNT_MAX - 1):
        note(records, name(1), look(number))
    assert records.get_ready(name(1)) is None
    note(records, name(1), look(99))
    assert records.get_ready(name(1)) is not None
