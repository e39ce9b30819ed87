"""Candidates read from the request's bytes are what the general decoder reads, or are left to it."""

import random
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from auction.eligibility import _list_candidates
from auction.kernel import LISTED, read_candidates_nb
from auction.request import CandidatesUnusual, RawSlotRequest, SlotRequest
from tests.auction.worlds import World, product, source

KNOWN = ["p1", "p2", "a-much-longer-product-id-of-sixty-four-characters-0123456789abcdef", "été", 'with "quotes"', "~"]
WORLD = World(source(products=[product(name) for name in KNOWN]))

candidates = st.lists(
    st.one_of(
        st.sampled_from([*KNOWN, "unknown", ""]),
        st.fixed_dictionaries(
            {"product_id": st.sampled_from([*KNOWN, "unknown"])},
            optional={
                "organic_rank": st.one_of(st.none(), st.integers(-1, 1_000_002)),
                "relevance": st.one_of(st.none(), st.floats(-0.1, 1.1), st.sampled_from([0, 1, 0.5, 0.123456, 1.0])),
            },
        ),
    ),
    max_size=12,
)


def body(told: Any) -> bytes:
    return msgspec.json.encode({"page": {"type": "home"}, "placements": [{"placement_id": "top", "candidates": told}]})


def read(raw_body: bytes) -> list[tuple[int, int, int]] | None:
    """What the bytes say, None where they are left to the general decoder."""
    raw = msgspec.json.decode(raw_body, type=RawSlotRequest).placements[0].candidates
    try:
        listed = _list_candidates(raw, 0, WORLD.market)
    except CandidatesUnusual:
        return None
    return [(one["product_row"], one["relevance_ppm"], one["organic_rank"]) for one in listed]


def read_generally(raw_body: bytes) -> list[tuple[int, int, int]] | None:
    """What the general decoder says, None where it refuses."""
    try:
        told = msgspec.json.decode(raw_body, type=SlotRequest).placements[0].candidates
    except msgspec.ValidationError:
        return None
    assert told is not None
    listed = _list_candidates(told, 0, WORLD.market)
    return [(one["product_row"], one["relevance_ppm"], one["organic_rank"]) for one in listed]


@given(candidates)
def test_what_is_read_is_what_the_general_decoder_reads(told: list[Any]) -> None:
    usual, general = read(body(told)), read_generally(body(told))
    if usual is not None:
        assert general is not None, "the bytes break the contract and were taken all the same"
        assert len(usual) == len(general)
        for (row, relevance, rank), (other_row, other_relevance, other_rank) in zip(usual, general, strict=True):
            assert (row, rank) == (other_row, other_rank)
            assert abs(relevance - other_relevance) <= 1, "only how an exact half is rounded may differ"


def test_the_usual_form_is_read() -> None:
    told = [{"product_id": "p2", "organic_rank": 7, "relevance": 0.25}, "p1", {"product_id": "unknown"}, "p2"]
    rows = WORLD.snapshot.product_row
    assert read(body(told)) == [(rows["p2"], 250_000, 7), (rows["p1"], -1, 0), (rows["p2"], -1, 0)]
    assert read(body([])) == []
    spaced = body(["here"]).replace(b'["here"]', b'[ {\n"relevance" : 1 ,"product_id":"p1" } , "p2" ]')
    assert read(spaced) == [(rows["p1"], 1_000_000, 0), (rows["p2"], -1, 0)]


@pytest.mark.parametrize(
    "told",
    [
        b"null",
        b"{}",
        b"[1]",
        b"[{}]",
        b'["p1",]',
        b'["p\\u0031"]',
        '["été"]'.encode(),
        b'[{"product_id":"p1","product_id":"p2"}]',
        b'[{"product_id":"p1","price":1}]',
        b'[{"organic_rank":1}]',
        b'[{"product_id":"p1","organic_rank":0}]',
        b'[{"product_id":"p1","organic_rank":01}]',
        b'[{"product_id":"p1","organic_rank":1000001}]',
        b'[{"product_id":"p1","organic_rank":99999999999999999999}]',
        b'[{"product_id":"p1","organic_rank":1.0}]',
        b'[{"product_id":"p1","relevance":1.1}]',
        b'[{"product_id":"p1","relevance":1e-3}]',
        b'[{"product_id":"p1","relevance":.5}]',
        b'[{"product_id":"p1","relevance":0.}]',
        b'[{"product_id":"p1","relevance":-0}]',
        b'[{"product_id":"p1","relevance":null}]',
        b'["' + b"x" * 65 + b'"]',
        b'["p1"] x',
        b"[",
        b'["p1"',
        b'["p1',
        b'[{"product_id"',
        b'[{"product_id":',
        b'[{"product_id":"p1","relevance":0',
        b"",
    ],
)
def test_anything_else_is_left_to_the_general_decoder(told: bytes) -> None:
    columns, listed = WORLD.snapshot.columns, np.empty(100, LISTED)
    raw = np.frombuffer(told, np.uint8)
    known = read_candidates_nb(
        raw, columns.product_id_start, columns.product_id_letters, WORLD.market.id_table, 100, listed
    )
    assert known == -1


def test_more_candidates_than_there_may_be_are_left_to_the_general_decoder() -> None:
    assert read(body(["p1"] * 10_000)) is not None
    assert read(body(["p1"] * 10_001)) is None


@pytest.mark.parametrize("seed", range(20))
def test_no_damage_to_the_bytes_is_read_as_something_else(seed: int) -> None:
    """Whatever byte is changed: the same as the general decoder reads, or left to it."""
    chance = random.Random(seed)
    whole = body([{"product_id": "p1", "organic_rank": 12, "relevance": 0.625}, "p2", {"product_id": "~"}])
    begin = whole.index(b"[", whole.index(b"candidates"))
    for _ in range(300):
        damaged = bytearray(whole)
        for _ in range(chance.randint(1, 2)):
            damaged[chance.randrange(begin, len(whole) - 3)] = chance.choice(b'"{}[],:.0159p~\\ e-n\x7f\xc3')
        try:
            usual = read(bytes(damaged))
        except msgspec.MsgspecError:
            continue  # refused before candidates are looked at
        if usual is not None:
            general = read_generally(bytes(damaged))
            assert general is not None, bytes(damaged)
            assert [(row, rank) for row, _, rank in usual] == [(row, rank) for row, _, rank in general], bytes(damaged)


def test_ids_that_fall_on_one_place_of_the_table_are_told_apart() -> None:
    names = [f"product-{number}" for number in range(3_000)]
    world = World(source(products=[product(name) for name in names]))
    raw = msgspec.json.decode(body([*names, "product-3000"]), type=RawSlotRequest).placements[0].candidates
    listed = _list_candidates(raw, 0, world.market)
    assert [world.snapshot.product_id[row] for row in listed["product_row"]] == names
