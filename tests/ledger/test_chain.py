"""The chain can be made again by anybody, from the rows alone."""

import hashlib
import json

import msgspec
import pytest

from ledger.chain import GENESIS_HEX, GrowingTree, append_batch, follow_path, hash_leaf, merkle_path, merkle_root
from tests.ledger.world import RETAILER, World


def sha(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def naive_root(leaves: list[bytes]) -> bytes:
    """The tree as one would draw it: sixteen and sixteen from the left, until one is left."""
    if len(leaves) == 1:
        return leaves[0]
    return naive_root([sha(b"\x01" + b"".join(leaves[n : n + 16])) for n in range(0, len(leaves), 16)])


@pytest.mark.parametrize("count", [*range(1, 35), 255, 256, 257, 4097])
def test_the_root_is_the_naive_one(count: int) -> None:
    leaves = [sha(bytes([n % 256, n // 256])) for n in range(count)]
    assert merkle_root(leaves) == naive_root(leaves)


@pytest.mark.parametrize("count", [*range(1, 35), 255, 256, 257, 4097])
def test_every_leafs_way_leads_to_the_root_and_says_its_place(count: int) -> None:
    leaves = [sha(bytes([n % 256, n // 256])) for n in range(count)]
    tree = GrowingTree()
    for leaf in leaves:
        tree.add(leaf)
    assert tree.root() == naive_root(leaves)
    for place in {*range(0, count, max(1, count // 50)), count - 1}:
        assert follow_path(leaves[place], merkle_path(leaves, place)) == (naive_root(leaves), place)


def test_a_way_with_another_hash_or_place_leads_elsewhere() -> None:
    leaves = [sha(bytes([n])) for n in range(40)]
    root, steps = naive_root(leaves), merkle_path(leaves, 21)
    assert follow_path(leaves[22], steps) != (root, 21)
    for depth, step in enumerate(steps):
        for place in range(len(step.others_hex) + 1):
            moved = [*steps[:depth], msgspec.structs.replace(step, place=place), *steps[depth + 1 :]]
            assert (follow_path(leaves[21], moved)[0] == root) == (place == step.place)
        for number in range(len(step.others_hex)):
            others = [*step.others_hex[:number], "00" * 32, *step.others_hex[number + 1 :]]
            moved = [*steps[:depth], msgspec.structs.replace(step, others_hex=others), *steps[depth + 1 :]]
            assert follow_path(leaves[21], moved)[0] != root


def test_an_outsider_makes_the_chain_again_from_the_views_and_the_rows(world: World) -> None:
    world.fund("adv-é", 10**9)
    for _ in range(3):
        world.record(
            *(world.event(world.fill(world.chance.randint(1, 10**6), advertiser_id="adv-é")) for _ in range(5))
        )
    leaves = {
        kind: [
            hash_leaf(kind, json.dumps(list(row[1:-1]), separators=(",", ":"), ensure_ascii=False).encode())
            for row in world.rows(f"SELECT * FROM {table} ORDER BY seq")
        ]
        for kind, table in (("event", "events"), ("entry", "entries"))
    }
    prev_hex = GENESIS_HEX
    for row in world.rows("SELECT * FROM audit_chain ORDER BY batch"):
        batch, kind, count, first_seq, last_seq, root_hex, kept_prev = row
        own = leaves[str(kind)][int(str(first_seq)) - 1 : int(str(last_seq))]
        assert (naive_root(own).hex(), len(own), prev_hex) == (root_hex, count, kept_prev)
        prev_hex = sha(b"\x02" + json.dumps(list(row), separators=(",", ":")).encode()).hex()
    assert world.rows("SELECT batch, hash_hex FROM chain_heads") == [(batch, prev_hex)]


def test_other_packages_append_their_own_rows_to_the_same_chain(world: World) -> None:
    world.fund("adv-1", 10**9)
    firsts = [world.database.transact(lambda c, n=n: append_batch(c, RETAILER, "change", [b"row"] * n)) for n in (2, 3)]
    world.click(world.fill())
    assert firsts == [1, 3]
    assert world.rows("SELECT kind, first_seq, last_seq FROM chain WHERE kind = 'change' ORDER BY batch") == [
        ("change", 1, 2),
        ("change", 3, 5),
    ]
    assert world.verify().is_good
    assert world.verify().unread_kinds == ["change"]


def test_nothing_written_is_no_batch(world: World) -> None:
    sent = world.event(world.fill(charge_on=None))
    world.record(sent)
    world.record(sent)
    assert world.rows("SELECT batch, kind FROM chain") == [(1, "event")]
