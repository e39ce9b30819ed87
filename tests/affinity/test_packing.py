"""A packed record is the record: nothing is lost but what is computed anew, set from elsewhere, or kept beside it."""

import random

from affinity.catalog import Product
from affinity.matching import Happening
from affinity.navigation import Action
from affinity.packing import Names, pack, unpack
from affinity.record import VisitorRecord, read_facts
from affinity.settings import Settings

NOW_MS = 1_700_000_000_000
NOT_PACKED = {
    "pseudonym",  # what it is packed under
    "profile",  # the database has it
    "entered",  # as well
    "purchases",  # beside the bytes
    "pending_count",
    "progress",
    "progress_index",
    "version",
    "view",
    "view_mask",
    "view_model",
    "view_targets",
    "view_until_ms",
}
PACKED = sorted(set(VisitorRecord.__slots__) - NOT_PACKED)
FACTS = read_facts(
    [
        Product(product_id=f"p{row}", brand=f"B{row % 3}", product_type=f"A > C{row % 4}", price_micros=5)
        for row in range(9)
    ]
)


def busy_record(seed: int) -> VisitorRecord:
    """Return a record every part of which says something."""
    chance, record = random.Random(seed), VisitorRecord(b"v" * 16)
    for _ in range(chance.randrange(20, 300)):
        product_id = chance.choice([None, "unknown", *FACTS])
        facts = None if product_id is None else FACTS.get(product_id)
        happening = Happening(
            NOW_MS + chance.randrange(10**9),
            chance.choice([Action.VIEW_ITEM, Action.PURCHASE, Action.SEARCH, Action.DISMISS]),
            product_id,
            chance.choice([None, "A > C1", "elsewhere"]) if facts is None else facts.category_id,
            None if facts is None else facts.brand,
            chance.choice([None, 0, 7 * 10**12]),
            chance.randrange(5),
            chance.choice([None, "rote schuhe \u2028", ""]),
        )
        record.note(happening, facts, Settings())
    for number in range(40):
        record.note_served(chance.choice(["", "bid_1", "bid_2"]), NOW_MS + number, f"place_{number % 3}", number)
    record.note_clicked("place_1", NOW_MS)
    record.seen_at_ms = NOW_MS
    return record


def test_what_was_packed_is_there_again_and_in_its_order() -> None:
    names = Names()
    for product_id in ("p1", "p2", "p5", "unknown"):
        names.mention(product_id, FACTS.get(product_id))
    for seed in range(30):
        record = busy_record(seed)
        again = unpack(b"v" * 16, pack(record, names), names)
        for part in PACKED:
            before, after = getattr(record, part), getattr(again, part)
            assert before, f"the test's record has no {part}"
            if part == "shown":
                before, after = (
                    {name: (one.at_ms, one.clicked_at_ms) for name, one in x.items()} for x in (before, after)
                )
            assert after == before, part
            if isinstance(before, dict):
                assert list(after) == list(before), part


def test_what_is_said_again_and_again_is_kept_once() -> None:
    """48 purchases in eight orders, of 48 products in as many categories, cost 1,350 bytes at most."""
    names, record = Names(), VisitorRecord(b"v" * 16)
    facts = read_facts(
        [
            Product(product_id=f"q{row}", brand=f"B{row % 30}", product_type=f"A > C{row % 6} > D{row}")
            for row in range(48)
        ]
    )
    for row, (product_id, fact) in enumerate(facts.items()):
        names.mention(product_id, fact)
        at_ms = NOW_MS + row // 6 * 604_800_000
        record.note(
            Happening(at_ms, Action.PURCHASE, product_id, fact.category_id, fact.brand, 5_000_000, 1), fact, Settings()
        )
    raw = pack(record, names)
    assert len(raw) <= 1_350
    again = unpack(b"v" * 16, raw, names)
    assert again.events == record.events
    assert again.bought_category == record.bought_category
    empty = VisitorRecord(b"v" * 16)
    empty.note(Happening(NOW_MS, Action.SEARCH, query=""), None, Settings())
    assert unpack(b"v" * 16, pack(empty, names), names).events == empty.events


def test_a_record_of_nothing_is_packed_too() -> None:
    again = unpack(b"v", pack(VisitorRecord(b"v"), Names()), Names())
    assert (again.events, again.session_began_ms, again.bought_product) == ([], 0, {})


def test_names_of_the_catalogue_are_numbers_that_others_names_cannot_be_taken_for() -> None:
    names, record = Names(), VisitorRecord(b"v")
    names.mention("p1", FACTS["p1"])
    for product_id in ("p1", "0", "1"):  # the latter are no numbers
        record.note(Happening(NOW_MS, Action.VIEW_ITEM, product_id), None, Settings())
    raw = pack(record, names)
    assert b"p1" not in raw
    assert [one.product_id for one in unpack(b"v", raw, names).events] == ["p1", "0", "1"]


def test_the_catalogue_fits_until_it_says_otherwise_of_a_product_that_was_mentioned() -> None:
    names = Names()
    names.mention("p1", FACTS["p1"])
    names.mention("unknown", None)
    assert names.fits(FACTS)
    assert names.fits({**FACTS, "p1": FACTS["p1"]._replace(price_micros=9)})
    assert names.fits({product_id: facts for product_id, facts in FACTS.items() if product_id != "p1"})
    assert names.fits({**FACTS, "p2": FACTS["p2"]._replace(brand="other")})
    assert not names.fits({**FACTS, "p1": FACTS["p1"]._replace(brand="other")})
    assert not names.fits({**FACTS, "p1": FACTS["p1"]._replace(category_id="other")})
    assert not names.fits({**FACTS, "unknown": FACTS["p1"]})


def test_a_record_shrinks_until_nothing_is_left() -> None:
    record, sizes = busy_record(1), []
    while record.shrink():
        sizes.append(len(pack(record, Names())))
    assert len(sizes) > 5
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-1] < 100


def test_shrinking_keeps_what_is_newest_and_weighs_most() -> None:
    record = busy_record(2)
    newest, heaviest = record.events[-1], max(record.category_weight, key=record.category_weight.__getitem__)
    last_bought = max(record.bought_product, key=record.bought_product.__getitem__)
    record.shrink()
    assert record.events[-1] == newest
    assert heaviest in record.category_weight
    assert last_bought in record.bought_product
