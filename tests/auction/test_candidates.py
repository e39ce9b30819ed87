"""Candidates read from the request's bytes are what the general decoder reads, or are left to it."""

import random
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from auction.candidates import FIRST_NUMBER, read_request, take_out
from auction.eligibility import _list_candidates
from auction.kernel import LISTED, WORD_PADDING, read_candidates_nb
from auction.market import Market
from auction.request import SlotRequest
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


Listed = list[tuple[int, int, int]]


def listed_in(request: SlotRequest, market: Market = WORLD.market, placement: int = 0) -> Listed:
    """Row, relevance and rank of each known candidate."""
    told = request.placements[placement].candidates
    assert told is not None
    return [tuple(one) for one in _list_candidates(told, market)[["product_row", "relevance_ppm", "organic_rank"]]]


def read(raw_body: bytes) -> Listed | None:
    """What the bytes say, None where they are left to the general decoder."""
    request = read_request(raw_body, WORLD.market)
    return listed_in(request) if isinstance(request.placements[0].candidates, int) else None


def read_generally(raw_body: bytes) -> Listed | None:
    """What the general decoder says, None where it refuses."""
    try:
        return listed_in(msgspec.json.decode(raw_body, type=SlotRequest))
    except msgspec.ValidationError:
        return None


def read_or_refuse(raw_body: bytes) -> Listed | None:
    """As `read`, None also where the body is refused."""
    try:
        return read(raw_body)
    except msgspec.ValidationError:
        return None


@given(candidates)
def test_what_is_read_is_what_the_general_decoder_reads(told: list[Any]) -> None:
    usual, general = read_or_refuse(body(told)), read_generally(body(told))
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
        b"[",
        b'["p1"',
        b'["p1',
        b'[{"product_id"',
        b'[{"product_id":',
        b'[{"product_id":"p1","relevance":0',
        b"",
        b'["p\x001"]',
        b'["p1\x7f"]',
        b'["0123456\\u0031"]',
    ],
)
def test_anything_else_is_left_to_the_general_decoder(told: bytes) -> None:
    columns, listed = WORLD.snapshot.columns, np.empty(100, LISTED)
    raw = np.frombuffer(told + bytes(WORD_PADDING), np.uint8)
    ends_at = np.full(1, -1, np.int64)
    ids = columns.product_id_start, columns.product_id_letters, WORLD.market.id_table
    assert read_candidates_nb(raw, 0, *ids, 100, listed, ends_at) == -1
    assert ends_at == -1


def test_more_candidates_than_there_may_be_are_left_to_the_general_decoder() -> None:
    assert read(body(["p1"] * 10_000)) is not None
    with pytest.raises(msgspec.ValidationError):
        read(body(["p1"] * 10_001))


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
        except (msgspec.MsgspecError, UnicodeDecodeError):
            continue
        if usual is not None:
            general = read_generally(bytes(damaged))
            assert general is not None, bytes(damaged)
            assert [(row, rank) for row, _, rank in usual] == [(row, rank) for row, _, rank in general], bytes(damaged)


def test_ids_that_fall_on_one_place_of_the_table_are_told_apart() -> None:
    names = [f"product-{number}" for number in range(3_000)]
    world = World(source(products=[product(name) for name in names]))
    request = read_request(body([*names, "product-3000"]), world.market)
    assert isinstance(request.placements[0].candidates, int)
    assert [world.snapshot.product_id[row] for row, _, _ in listed_in(request, world.market)] == names


@pytest.mark.parametrize("size", range(1, 65))
def test_ids_of_every_length_are_found(size: int) -> None:
    name, other = "x" * size, "x" * (size - 1) + "y"
    world = World(source(products=[product(name), product("z" * size)]))
    request = read_request(body([other, name, name[:-1], name]), world.market)
    assert isinstance(request.placements[0].candidates, int)
    assert [world.snapshot.product_id[row] for row, _, _ in listed_in(request, world.market)] == [name, name]


def placement_of(told: Any) -> dict[str, Any]:
    return {"placement_id": "top", "candidates": told}


def test_each_placement_gets_its_own_list() -> None:
    told = [["p1"], None, ["p2", "p1"], [], ["~"]]
    page = {"page": {"type": "home"}, "placements": [placement_of(one) for one in told]}
    request = read_request(msgspec.json.encode(page), WORLD.market)
    rows = WORLD.snapshot.product_row
    assert request.placements[1].candidates is None
    names = [
        [name for name, row in rows.items() for one in listed_in(request, placement=n) if one[0] == row]
        for n in (0, 2, 3, 4)
    ]
    assert [sorted(one) for one in names] == [["p1"], ["p1", "p2"], [], ["~"]]


@pytest.mark.parametrize(
    "raw_body",
    [
        b'{"context":{"candidates":["p1"]},"page":{"type":"home"},"placements":[{"placement_id":"top"}]}',
        b'{"context":{"a":{"candidates":["p1"]}},"page":{"type":"home"},'
        b'"placements":[{"placement_id":"top","candidates":["p2"]}]}',
        b'{"context":{"x\\"candidates":["p1"]},"page":{"type":"home"},"placements":[{"placement_id":"top"}]}',
        b'{"page":{"type":"home"},"placements":[{"placement_id":"top","candidates":["p1"],"candidates":["p2"]}]}',
        b'{"page":{"type":"home"},"placements":[{"placement_id":"top","candidates":["p1"],"candidates":null}]}',
    ],
)
def test_a_list_that_is_not_a_placements_is_what_the_general_decoder_makes_of_it(raw_body: bytes) -> None:
    assert read_request(raw_body, WORLD.market) == msgspec.json.decode(raw_body, type=SlotRequest)


@pytest.mark.parametrize(
    "told", [0, FIRST_NUMBER, FIRST_NUMBER + 1, 1.5, "p1"], ids=["zero", "first", "next", "part", "text"]
)
def test_a_number_in_the_place_of_candidates_is_refused(told: Any) -> None:
    page = {"page": {"type": "home"}, "placements": [placement_of(told)]}
    with pytest.raises(msgspec.ValidationError):
        read_request(msgspec.json.encode(page), WORLD.market)
    page["context"] = {"candidates": ["p1"]}
    if told != FIRST_NUMBER:  # which nobody outside can know
        with pytest.raises(msgspec.ValidationError):
            read_request(msgspec.json.encode(page), WORLD.market)


def test_what_is_taken_out_leaves_the_rest_as_it_came() -> None:
    whole = body(["p1"]) + b" "
    rest, count = take_out(whole, WORLD.market)
    assert count == 1
    assert rest == whole.replace(b'["p1"]', b"%d" % FIRST_NUMBER)
