"""Bad input to `POST /v1/fills`: each a problem with a code and a pointer, or an answer that is defined; and no 500."""

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.bidder_api.world import World

EVENT = {"visitor_id": "v", "action": "view_item", "product_id": "p1", "occurred_at": "2026-11-18T11:06:39Z"}
HOME = {"type": "home"}
TOP = {"placement_id": "top"}
BODY: dict[str, Any] = {"page": HOME, "placements": [TOP], "tmax_ms": 10_000}
DEEP = b"[" * 100_000 + b"]" * 100_000


@pytest.fixture(scope="module")
def shop(shared_world: World) -> World:
    """A shop with two placements on the home page, one on the cart's, and a bid on each of three products."""
    world = shared_world
    product = {
        "title": "Shoe", "price_micros": 10_000_000, "brand": "Acme", "product_type": "Shoes",
        "advertiser_ids": ["acme"], "attributes": {"size": "42"},
    }  # fmt: skip
    for number in range(1, 5):
        world.call("PUT", f"/v1/products/p{number}", product, role="merchant")
    for name, page in (("top", "home"), ("strict", "home"), ("basket", "cart")):
        place = {"page_types": [page, "search"], "slot_count": 3, "relevance_floor_ppm": 500_000}
        world.call("PUT", f"/v1/placements/{name}", place, role="merchant")
    rule = {"name": "r", "effect": {"boost": 1.5}, "scope": {"devices": ["mobile"]}, "stage": "live"}
    assert world.call("POST", "/v1/rules", rule, role="merchant").status_code == 201
    top_up = {"advertiser_id": "acme", "amount_micros": 10**12, "reference": "r"}
    world.call("POST", "/v1/ledger/top-ups", top_up, role="finance")
    campaign_id = world.call("POST", "/v1/campaigns", {"name": "c"}).json()["campaign_id"]
    bid = {"campaign_id": campaign_id, "product_ids": ["p1", "p2", "p3"], "bid_micros": 90_000}
    assert world.call("POST", "/v1/bids", bid).status_code == 201
    world.wait_started()
    world.publish()
    return world


def ask(shop: World, body: Any) -> Any:
    return shop.call("POST", "/v1/fills", body, role="retailer")


def ask_raw(shop: World, content: Any) -> Any:
    headers = {"Content-Type": "application/json"}
    return shop.call("POST", "/v1/fills", role="retailer", content=content, headers=headers)


def at_top(**more: Any) -> dict[str, Any]:
    return {"placements": [TOP | more]}


def candidates(*several: Any) -> dict[str, Any]:
    return at_top(candidates=list(several))


FIRST = "/placements/0/candidates/0"


@pytest.mark.parametrize(
    ("change", "status", "code", "pointer"),
    [
        # placements
        ({"placements": [{"placement_id": "none"}]}, 404, "placement_unknown", "/placements/0/placement_id"),
        ({"placements": [{"placement_id": "\0"}]}, 404, "placement_unknown", "/placements/0/placement_id"),
        ({"placements": [{"placement_id": "t" * 65}]}, 400, "field_out_of_range", "/placements/0/placement_id"),
        ({"placements": [TOP, TOP]}, 422, "placement_repeated", "/placements/1/placement_id"),
        ({"placements": [TOP, {"placement_id": "basket"}]}, 422, "placement_not_on_page", "/placements/1/placement_id"),
        ({"placements": []}, 400, "field_out_of_range", "/placements"),
        ({"placements": [TOP] * 6}, 400, "field_out_of_range", "/placements"),
        ({"placements": TOP}, 400, "field_wrong_type", "/placements"),
        ({"placements": ["top"]}, 400, "field_wrong_type", "/placements/0"),
        (at_top(slot_count=0), 400, "field_out_of_range", "/placements/0/slot_count"),
        (at_top(slot_count=-1), 400, "field_out_of_range", "/placements/0/slot_count"),
        (at_top(slot_count=51), 400, "field_out_of_range", "/placements/0/slot_count"),
        (at_top(slot_count=4), 422, "slot_count_too_large", "/placements/0/slot_count"),
        (at_top(slot_count=1.5), 400, "field_wrong_type", "/placements/0/slot_count"),
        (at_top(slot_count=True), 400, "field_wrong_type", "/placements/0/slot_count"),
        # tmax
        ({"tmax_ms": 0}, 400, "field_out_of_range", "/tmax_ms"),
        ({"tmax_ms": -5}, 400, "field_out_of_range", "/tmax_ms"),
        ({"tmax_ms": 10_001}, 400, "field_out_of_range", "/tmax_ms"),
        ({"tmax_ms": 10**30}, 400, "field_out_of_range", "/tmax_ms"),
        ({"tmax_ms": "5"}, 400, "field_wrong_type", "/tmax_ms"),
        ({"tmax_ms": None}, 400, "field_wrong_type", "/tmax_ms"),
        # candidates
        (at_top(candidates=[f"p{n}" for n in range(10_001)]), 400, "field_out_of_range", "/placements/0/candidates"),
        (at_top(candidates={}), 400, "field_wrong_type", "/placements/0/candidates"),
        (at_top(candidates="p1"), 400, "field_wrong_type", "/placements/0/candidates"),
        (candidates("p" * 65), 400, "field_out_of_range", FIRST),
        (candidates({"product_id": "p" * 65}), 400, "field_out_of_range", f"{FIRST}/product_id"),
        (candidates(5), 400, "field_wrong_type", FIRST),
        (candidates(None), 400, "field_wrong_type", FIRST),
        (candidates("p1", ["p2"]), 400, "field_wrong_type", "/placements/0/candidates/1"),
        (candidates({}), 400, "field_missing", f"{FIRST}/product_id"),
        (candidates({"product_id": "p1", "price": 1}), 400, "field_unknown", f"{FIRST}/price"),
        (candidates({"product_id": "p1", "relevance": -0.01}), 400, "field_out_of_range", f"{FIRST}/relevance"),
        (candidates({"product_id": "p1", "relevance": 1.01}), 400, "field_out_of_range", f"{FIRST}/relevance"),
        (candidates({"product_id": "p1", "relevance": "0.5"}), 400, "field_wrong_type", f"{FIRST}/relevance"),
        (candidates({"product_id": "p1", "organic_rank": 0}), 400, "field_out_of_range", f"{FIRST}/organic_rank"),
        (candidates({"product_id": "p1", "organic_rank": 10**9}), 400, "field_out_of_range", f"{FIRST}/organic_rank"),
        (candidates({"product_id": "p1", "organic_rank": 1.5}), 400, "field_wrong_type", f"{FIRST}/organic_rank"),
        # fields nobody knows, and fields that are missing
        ({"colour": "red"}, 400, "field_unknown", "/colour"),
        ({"page": HOME | {"colour": "red"}}, 400, "field_unknown", "/page/colour"),
        (at_top(colour="red"), 400, "field_unknown", "/placements/0/colour"),
        ({"consent": {"colour": "red"}}, 400, "field_unknown", "/consent/colour"),
        ({"page": {}}, 400, "field_missing", "/page/type"),
        ({"placements": [{}]}, 400, "field_missing", "/placements/0/placement_id"),
        # the page
        ({"page": {"type": "elsewhere"}}, 400, "field_invalid", "/page/type"),
        ({"page": "home"}, 400, "field_wrong_type", "/page"),
        ({"page": {"type": "search", "query": "x" * 513}}, 400, "field_out_of_range", "/page/query"),
        ({"page": {"type": "search", "query": "x\0"}}, 400, "field_out_of_range", "/page/query"),
        ({"page": HOME | {"category_id": "\0"}}, 400, "field_out_of_range", "/page/category_id"),
        ({"page": HOME | {"product_id": "p" * 65}}, 400, "field_out_of_range", "/page/product_id"),
        ({"page": HOME | {"filters": []}}, 400, "field_wrong_type", "/page/filters"),
        ({"page": HOME | {"filters": {str(n): [n] for n in range(21)}}}, 400, "field_out_of_range", "/page/filters"),
        # who looks
        ({"visitor_id": ""}, 400, "field_out_of_range", "/visitor_id"),
        ({"visitor_id": "v" * 65}, 400, "field_out_of_range", "/visitor_id"),
        ({"visitor_id": "v\0"}, 400, "field_out_of_range", "/visitor_id"),
        ({"visitor_id": 5}, 400, "field_wrong_type", "/visitor_id"),
        ({"consent": {"personalised": "yes"}}, 400, "field_wrong_type", "/consent/personalised"),
        ({"navigation": [EVENT] * 101}, 400, "field_out_of_range", "/navigation"),
        ({"navigation": [EVENT | {"action": "fly"}]}, 400, "field_invalid", "/navigation/0/action"),
        ({"navigation": [EVENT | {"occurred_at": "noon"}]}, 400, "field_invalid", "/navigation/0/occurred_at"),
        (
            {"navigation": [EVENT, EVENT | {"occurred_at": "9999-12-31T23:59:59Z"}]},
            422,
            "occurred_at_in_future",
            "/navigation/1/occurred_at",
        ),
        # the rest
        ({"context": []}, 400, "field_wrong_type", "/context"),
        ({"context": 5}, 400, "field_wrong_type", "/context"),
        ({"context": {str(n): n for n in range(51)}}, 400, "field_out_of_range", "/context"),
        ({"exclude_product_ids": ["p"] * 1001}, 400, "field_out_of_range", "/exclude_product_ids"),
        ({"exclude_product_ids": [5]}, 400, "field_wrong_type", "/exclude_product_ids/0"),
        ({"mode": "free"}, 400, "field_invalid", "/mode"),
        ({"rules": "maybe"}, 400, "field_invalid", "/rules"),
    ],
)
def test_what_breaks_the_contract_is_refused_by_name(
    shop: World, change: dict[str, Any], status: int, code: str, pointer: str
) -> None:
    answer = ask(shop, BODY | change)
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert (answer.status_code, problem["code"], problem["pointer"]) == (status, code, pointer)
    assert problem["status"] == status
    assert problem["detail"]


def raw(placement: bytes = b"", rest: bytes = b"", page: bytes = b"") -> bytes:
    return b'{"page":{"type":"home"' + page + b'},"placements":[{"placement_id":"top"' + placement + b"}]" + rest + b"}"


@pytest.mark.parametrize(
    ("content", "status", "code", "pointer"),
    [
        (b"", 400, "body_malformed", ""),
        (b"{", 400, "body_malformed", ""),
        (b"nul", 400, "body_malformed", ""),
        (b"null", 400, "field_wrong_type", ""),
        (b"[]", 400, "field_wrong_type", ""),
        (b"{}", 400, "field_missing", "/page"),
        (b"\xff\xfe", 400, "body_malformed", ""),
        (raw() + b" x", 400, "body_malformed", ""),
        (raw(b',"candidates":[{"product_id":"p1","relevance":NaN}]'), 400, "body_malformed", ""),
        (raw(b',"candidates":[{"product_id":"p1","relevance":1e999}]'), 400, "field_invalid", f"{FIRST}/relevance"),
        (raw(b',"candidates":["p1",]'), 400, "body_malformed", ""),
        (raw(b',"candidates":["p1"'), 400, "body_malformed", ""),
        (raw(b',"candidates":["\xff"]'), 400, "body_not_utf8", ""),
        (raw(b',"candidates":["\\ud800"]'), 400, "body_malformed", ""),
        (raw(rest=b',"context":{"device":"\xc3"}'), 400, "body_not_utf8", ""),
        (raw(page=b',"query":"\xed\xa0\x80"'), 400, "body_not_utf8", ""),
        (DEEP, 400, "field_wrong_type", ""),
        (raw(rest=b',"context":{"device":' + DEEP + b"}"), 400, "body_too_deep", ""),
        (raw(page=b',"filters":{"size":' + DEEP + b"}"), 400, "body_too_deep", ""),
        (raw(b',"candidates":' + DEEP), 400, "field_wrong_type", "/placements/0/candidates/0"),
        (raw(rest=b',"colour":' + DEEP), 400, "field_unknown", "/colour"),
        (raw(rest=b" " * 2_000_000), 413, "body_too_large", None),
    ],
)
def test_what_is_no_request_is_refused_by_name(
    shop: World, content: bytes, status: int, code: str, pointer: str | None
) -> None:
    answer = ask_raw(shop, content)
    assert answer.headers["content-type"] == "application/problem+json"
    assert (answer.status_code, answer.json()["code"], answer.json().get("pointer")) == (status, code, pointer)


def test_a_body_that_says_no_length_may_be_no_longer(shop: World) -> None:
    def pieces() -> Iterator[bytes]:
        for _ in range(30):
            yield b" " * 100_000

    answer = ask_raw(shop, pieces())
    assert (answer.status_code, answer.json()["code"]) == (413, "body_too_large")


ALL = ["p1", "p2", "p3"]


@pytest.mark.parametrize(
    ("change", "filled"),
    [
        # A candidate nobody knows is left out, whatever its id is made of; an empty list means none.
        (candidates("p9", "p1"), ["p1"]),
        (candidates("p\0", "p1"), ["p1"]),
        (candidates("", "p1"), ["p1"]),
        (candidates("été", "p" * 64, "p1"), ["p1"]),
        (candidates(), []),
        (at_top(candidates=None), ALL),
        (at_top(candidates=[f"p{n}" for n in range(10_000)]), ALL),
        # Of a candidate given twice the first counts.
        (candidates("p1", "p1", {"product_id": "p1"}), ["p1"]),
        (candidates({"product_id": "p1", "relevance": 0.9}, {"product_id": "p1", "relevance": 0.1}), ["p1"]),
        (candidates({"product_id": "p1", "relevance": 0.1}, {"product_id": "p1", "relevance": 0.9}), []),
        (candidates({"product_id": "p1", "relevance": 1e-300}, "p2", "p1"), ["p2"]),
        # What the context or a filter cannot be meant by says nothing, or lets nothing through.
        ({"context": {"device": ["mobile"], "weather": 5, "region": {"a": 1}, "store": None, "x": 10**40}}, ALL),
        ({"context": {"device": 1.5, "weather": True, "": "", "\0": "\0"}}, ALL),
        ({"page": HOME | {"filters": {"product_id": ["p1", {"a": 1}, [], None]}}}, ["p1"]),
        ({"page": HOME | {"filters": {"product_id": {"p1": 1}}}}, []),
        ({"page": HOME | {"filters": {"size": ["42", {}, []]}}}, ALL),
        ({"page": HOME | {"filters": {"size": None}}}, []),
        ({"page": HOME | {"filters": {"category_id": [["Shoes"], 5]}}}, []),
        ({"page": HOME | {"filters": {"price_min_micros": 10**40}}}, []),
        ({"page": HOME | {"filters": {"price_max_micros": 1e308, "price_min_micros": -(10**400)}}}, ALL),
        ({"page": HOME | {"filters": {"price_max_micros": ["9"]}}}, []),
        ({"page": HOME | {"filters": {"colour": ["red"]}}}, []),
        ({"exclude_product_ids": ["\0", "p9", "p2", "p2"]}, ["p1", "p3"]),
        ({"page": HOME | {"product_id": "\0", "category_id": "No > Such"}}, ALL),
        ({"navigation": [EVENT] * 100}, ALL),
        (
            {
                "visitor_id": "v",
                "consent": {"personalised": True},
                "navigation": [EVENT | {"occurred_at": "0001-01-01T00:00:00Z"}],
            },
            ALL,
        ),
    ],
)
def test_what_is_odd_but_allowed_has_a_defined_answer(shop: World, change: dict[str, Any], filled: list[str]) -> None:
    answer = ask(shop, BODY | change)
    assert answer.status_code == 200, answer.text
    (place,) = answer.json()["placements"]
    assert sorted(fill["product_id"] for fill in place["fills"]) == filled
    assert (place["no_fill_reason"] is None) == bool(filled)
    receipt = shop.call("GET", f"/v1/auctions/{answer.json()['auction_id']}", role="retailer")
    assert receipt.status_code == 200, "and its receipt can be read"


@pytest.mark.parametrize("auction_id", ["auc_%00", "a" * 65, "%ff", "auc_" + "u" * 26, "auc_" + "0" * 26, "..%2F.."])
def test_an_id_that_is_no_auctions_is_refused(shop: World, auction_id: str) -> None:
    answer = shop.call("GET", f"/v1/auctions/{auction_id}", role="retailer")
    assert answer.status_code in (400, 404)
    assert answer.json()["code"] in ("parameter_invalid", "auction_unknown")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(max_size=8), children, max_size=3),
    max_leaves=8,
)
ODD = JSON | st.sampled_from(["p1", "top", "mobile", 0, -1, 2**63, 2**64, 1e308])
FIELDS = ["visitor_id", "consent", "exclude_product_ids", "navigation", "context", "tmax_ms", "mode", "rules"]
FILTERS = ["product_id", "category_id", "size", "brand", "price_min_micros", "price_max_micros"]
BODIES = st.one_of(
    st.dictionaries(st.sampled_from([*FIELDS, "page", "placements"]), ODD, max_size=3),
    st.fixed_dictionaries({"context": st.dictionaries(st.sampled_from(["device", "weather", "region", "x"]), ODD)}),
    st.dictionaries(st.sampled_from(FILTERS), ODD | st.lists(ODD, max_size=3), max_size=3).map(
        lambda filters: {"page": HOME | {"filters": filters}}
    ),
    st.lists(
        ODD
        | st.fixed_dictionaries({"product_id": st.sampled_from(["p1", "p2", "\0"]) | ODD}, optional={"relevance": ODD}),
        max_size=3,
    ).map(lambda several: candidates(*several)),
)


@given(BODIES, st.sampled_from(["sponsored", "merchandised"]))
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_nothing_that_is_json_makes_the_server_stumble(shop: World, change: dict[str, Any], mode: str) -> None:
    answer = ask(shop, BODY | {"mode": mode} | change)
    assert answer.status_code < 500, answer.text
    if answer.status_code >= 400:
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["code"]
        assert "pointer" in answer.json()


@given(st.binary(max_size=120), st.booleans())
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_nothing_that_is_not_json_makes_the_server_stumble(shop: World, content: bytes, is_inside: bool) -> None:
    answer = ask_raw(shop, raw(b',"candidates":[' + content + b"]") if is_inside else content)
    assert answer.status_code in (200, 400, 422)
