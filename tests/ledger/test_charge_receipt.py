"""A receipt of a charge proves it to whoever has a checkpoint, and nothing that was changed passes for one."""

import random
from typing import Any

import msgspec
import pytest

from ledger.charge_receipt import Charged, ChargeReceipt, check_charge_receipt, make_charge_receipt
from ledger.checkpoint import Checkpoint, make_checkpoint
from ledger.errors import ConflictRefused, NotFound, RequestRefused
from tests.ledger.world import NOON_MS, RETAILER, World

SEED = bytes(range(32))


def checkpoint_of(world: World) -> Checkpoint:
    return world.database.read(lambda c: make_checkpoint(c, RETAILER, SEED, NOON_MS))  # type: ignore[no-any-return]


def receipt_of(world: World, event_id: str, checkpoint: Checkpoint) -> ChargeReceipt:
    return world.database.read(  # type: ignore[no-any-return]
        lambda c: make_charge_receipt(c, RETAILER, event_id, checkpoint)
    )


def check(receipt: Any, checkpoint: Checkpoint) -> Charged:
    return check_charge_receipt(msgspec.json.encode(receipt), checkpoint)


@pytest.fixture
def books(world: World) -> World:
    """Forty commits of one to forty events, paid from promotional credit, a wallet and a credit line."""
    world.fund("adv-1", 300_001, "promotional-credit")
    world.fund("adv-1", 5_000_003)
    world.credit("adv-1", 10**9)
    for commit in range(40):
        some = range(world.chance.randint(1, 40))
        world.record(
            *(world.event(world.fill(world.chance.randint(1, 99_999)), event_id=f"e{commit}-{n}") for n in some)
        )
    return world


def test_every_charge_of_the_books_has_a_receipt_that_proves_it(books: World) -> None:
    checkpoint = checkpoint_of(books)
    rows = books.rows("SELECT event_id, seq, amount_micros FROM events ORDER BY seq")
    for event_id, seq, amount_micros in random.Random(1).sample(rows, 60):
        proven = check(receipt_of(books, str(event_id), checkpoint), checkpoint)
        assert (proven.event_id, proven.seq, proven.amount_micros) == (event_id, seq, amount_micros)
        assert -sum(micros for account, micros in proven.postings if account == "revenue:media") == amount_micros
        assert sum(micros for _, micros in proven.postings) == 0


def test_an_event_that_cost_nothing_has_a_receipt_too(world: World) -> None:
    world.record(world.event(world.fill(charge_on=None), event_id="e1"))
    checkpoint = checkpoint_of(world)
    proven = check(receipt_of(world, "e1", checkpoint), checkpoint)
    assert (proven.status, proven.code, proven.amount_micros, proven.postings) == ("unbilled", "organic", 0, [])


def test_an_older_checkpoint_covers_no_later_charge_and_another_books_none(books: World) -> None:
    checkpoint = checkpoint_of(books)
    books.record(books.event(books.fill(), event_id="later"))
    assert check(receipt_of(books, "e0-0", checkpoint), checkpoint).event_id == "e0-0"
    with pytest.raises(ConflictRefused, match="came later"):
        receipt_of(books, "later", checkpoint)
    with pytest.raises(ConflictRefused, match="of these books"):
        receipt_of(books, "e0-0", msgspec.structs.replace(checkpoint, batches_root_hex="ab" * 32))
    with pytest.raises(NotFound):
        receipt_of(books, "never", checkpoint)


def test_nothing_that_was_changed_passes(books: World) -> None:
    """Every number and every text of a receipt, changed one at a time, and entries left out, doubled or swapped."""
    checkpoint = checkpoint_of(books)
    receipt = msgspec.to_builtins(receipt_of(books, "e20-0", checkpoint))
    changed = [*changes(receipt), *(receipt | {"entries": some} for some in other_lists(receipt["entries"]))]
    assert len(changed) > 100
    for one in changed:
        with pytest.raises(RequestRefused) as refused:
            check(one, checkpoint)
        assert refused.value.code == "receipt_invalid"


def test_a_receipt_of_other_books_does_not_pass(books: World) -> None:
    checkpoint = checkpoint_of(books)
    receipt = receipt_of(books, "e20-0", checkpoint)
    books.record(books.event(books.fill()))
    with pytest.raises(RequestRefused):
        check(receipt, checkpoint_of(books))
    for text in (b"", b"[]", b"\xff", b"{}", b"[" * 100_000):
        with pytest.raises(RequestRefused):
            check_charge_receipt(text, checkpoint)


def changes(value: Any) -> Any:
    """Yield copies of a tree of JSON with one leaf changed."""
    if isinstance(value, dict):
        for name, part in value.items():
            yield from (value | {name: other} for other in changes(part))
    elif isinstance(value, list):
        for number, part in enumerate(value):
            yield from ([*value[:number], other, *value[number + 1 :]] for other in changes(part))
    elif isinstance(value, str):
        yield ("0" if value[:1] != "0" else "1") + value[1:]
    elif isinstance(value, int):
        yield value + 1
    else:
        yield "0"


def other_lists(entries: list[Any]) -> list[list[Any]]:
    return [[], entries[:1], entries[1:], [*entries, entries[0]], entries[::-1]]
