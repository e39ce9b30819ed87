"""Pages by JSON: worked cases one can read, 500 random pages against exact fractions, and what is refused."""

import json
import random
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import msgspec
import pytest

from auction.solve import SolvePage, eager_floor, solve_page
from tests.auction import naive, naive_exact

CASES = sorted((Path(__file__).parent / "cases" / "mechanism").glob("*.json"))
encode = msgspec.json.Encoder(decimal_format="number").encode


def solve(page: dict[str, Any]) -> dict[str, Any]:
    """Send the page through JSON and back, as the command does, and keep every digit of the answer."""
    answer = encode(solve_page(msgspec.json.decode(encode(page))))
    return json.loads(answer, parse_float=Decimal, parse_int=Decimal)  # type: ignore[no-any-return]


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_worked_case(path: Path) -> None:
    case = json.loads(path.read_text(), parse_float=Decimal, parse_int=Decimal)
    assert case["why"]
    for step in case["pages"]:
        assert solve(json.loads(encode(step["page"]))) == step["answer"]


def test_there_are_worked_cases() -> None:
    assert len(CASES) >= 10


def random_page(chance: random.Random) -> dict[str, Any]:
    """Return a page in the public form, full of ties, caps that bind, floors, eligibility and mixed charge types."""
    slot_count, ad_count = chance.randint(1, 6), chance.randint(1, 12)
    ids = [f"a{number}" for number in range(ad_count)]
    coarse = chance.random() < 0.4

    def money(most: str) -> Decimal:
        steps = 8 if coarse else 10**6
        return (Decimal(most) * chance.randint(0, steps) / steps).quantize(Decimal("0.000001"))

    page: dict[str, Any] = {
        "pricing": ["critical", "vcg"],
        "allocation": "greedy",
        "score_floor": money("0.05") if chance.random() < 0.5 else Decimal(0),
        "slots": [
            {"eligible": chance.choice([None, None, chance.sample(ids, chance.randint(0, ad_count))])}
            for _ in range(slot_count)
        ],
        "profiles": {
            charge: sorted((Decimal(chance.randint(1, 1000)) / 1000 for _ in range(slot_count)), reverse=True)
            for charge in ("click", "impression")
        },
        "ads": [
            {
                "id": name,
                "brand": f"B{chance.randint(0, 5)}",
                "type": (charge := chance.choice(["click", "impression"])),
                "bid": money("4" if charge == "click" else "0.2"),
                "weight": max(money("0.1"), Decimal("0.000001")) if charge == "click" else Decimal(1),
                "value": money("0.05") if chance.random() < 0.3 else Decimal(0),
                "floor": money("2" if charge == "click" else "0.1") if chance.random() < 0.4 else Decimal(0),
            }
            for name in ids
        ],
    }
    if chance.random() < 0.6:
        page["brand_cap"] = chance.randint(0, 3)
    if chance.random() < 0.3:
        page["sponsored_cap"] = chance.randint(0, slot_count)
    return page


CAPS = (("brand_cap", None), ("sponsored_cap", "paid"))


def as_drawn_on_the_whiteboard(page: dict[str, Any]) -> naive.Page:
    micros = 1_000_000
    ids = sorted(ad["id"] for ad in page["ads"])
    every = frozenset(range(len(page["slots"])))
    return naive.Page(
        attention={charge: [Fraction(a) for a in profile] for charge, profile in page["profiles"].items()},
        ads=[
            naive.Ad(
                name=ad["id"],
                product=ad["id"],
                brand=ad["brand"],
                advertiser=ad["brand"],
                charge=ad["type"],
                bid=int(ad["bid"] * micros),
                weight=Fraction(ad["weight"]),
                value=Fraction(ad["value"]) * micros,
                floor=int(ad["floor"] * micros),
                tie=ids.index(ad["id"]),
                slots=frozenset(
                    slot
                    for slot, asked in enumerate(page["slots"])
                    if asked["eligible"] is None or ad["id"] in asked["eligible"]
                ),
            )
            for ad in page["ads"]
        ],
        caps=[naive.Cap(every, page[name], group, per_brand=group is None) for name, group in CAPS if name in page],
        score_floor=Fraction(page["score_floor"]) * micros,
    )


@pytest.mark.parametrize("allocation", ["greedy", "exact"])
def test_500_random_pages_agree_exactly_with_fractions(allocation: str) -> None:
    chance = random.Random(20261124)
    fill_count = 0
    for _ in range(500):
        page = random_page(chance)
        answer, twin = solve(page | {"allocation": allocation}), as_drawn_on_the_whiteboard(page)
        if allocation == "greedy":
            fills = {pick.slot: pick.ad for pick in naive.allocate(twin)}
            prices = naive.prices(twin)
        else:
            assert answer["allocation_used"] == "exact"
            fills = naive_exact.allocate(twin)
            prices = naive_exact.prices(twin, fills)
        assert answer["fills"] == [fills[slot].name if slot in fills else None for slot in range(twin.slot_count)]
        welfare = sum((naive.pair_value(twin, ad, slot) for slot, ad in fills.items()), Fraction(0))
        assert Fraction(answer["welfare"]) == welfare / 1_000_000
        assert answer["critical"] == {name: Decimal(price.critical) / 1_000_000 for name, price in prices.items()}
        assert answer["vcg"] == {name: Decimal(price.vcg) / 1_000_000 for name, price in prices.items()}
        fill_count += len(fills)
    assert fill_count > 800  # the pages are not empty


def test_a_floor_on_the_score_becomes_a_floor_on_the_bid_rounded_up() -> None:
    assert eager_floor(0, 30_000, 38_000, 0) == 789_474  # 0.03 / 0.038 = 0.78947…
    assert eager_floor(800_000, 30_000, 38_000, 0) == 800_000
    assert eager_floor(0, 30_000, 38_000, 30_000) == 0
    assert eager_floor(0, 30_000, 38_000, 40_000) == 0


def plain_page(**changes: Any) -> dict[str, Any]:
    ad = {"id": "a", "brand": "A", "type": "click", "bid": 1, "weight": 0.5}
    ad |= {name[3:]: changes.pop(name) for name in list(changes) if name.startswith("ad_")}
    return {"slots": [{}], "profiles": {"click": [1]}, "ads": [ad], **changes}


def test_a_page_of_only_the_necessary_fields_is_solved() -> None:
    assert solve(plain_page()) == {"fills": ["a"], "welfare": Decimal("0.5"), "critical": {"a": Decimal("0.000001")}}


@pytest.mark.parametrize(
    ("page", "rule"),
    [
        (plain_page(ad_bid=1000.000001), "bid must be from 0 to 1000"),
        (plain_page(ad_bid=-1), "bid must be from 0 to 1000"),
        (plain_page(ad_bid=0.0000001), "bid must have at most 6 decimals"),
        (plain_page(ad_bid="NaN"), "bid must be from 0 to 1000"),
        (plain_page(ad_weight=0), "weight must be from 0.000001 to 4"),
        (plain_page(ad_weight=4.000001), "weight must be from 0.000001 to 4"),
        (plain_page(ad_value=1000.1), "value must be from 0 to 1000"),
        (plain_page(ad_floor=-0.5), "floor must be from 0"),
        (plain_page(ad_type="impression"), "profiles must hold every type in use"),
        (plain_page(ad_advertiser=None), "an organic ad must not bid"),
        (plain_page(profiles={"click": [1, 1]}), "one number per slot"),
        (plain_page(profiles={"click": [1.1]}), "attention must be from 0 to 1,"),
        (plain_page(profiles={"click": [0.0001]}), "attention must have at most 3 decimals"),
        (plain_page(score_floor=-1), "score_floor must be from 0"),
        (plain_page(brand_cap=-1), "brand_cap must be at least 0"),
        (plain_page(slots=[{"pin": "b"}]), "a pin must be the id of an ad"),
        (plain_page(slots=[{}] * 65, profiles={"click": [1] * 65}), "slots must be at most 64"),
        (plain_page(ads=plain_page()["ads"] * 2), "ids of ads must differ"),
        (plain_page(allocation="best"), "Invalid enum value 'best'"),
        (plain_page(slots=[], profiles={"click": []}), "slots must be at least 1, were 0"),
        (plain_page(ad_bid="Infinity"), "bid must be from 0 to 1000"),
        (plain_page(ad_weight="NaN"), "weight must be from 0.000001 to 4"),
        (plain_page(profiles={"click": ["NaN"]}), "attention must be from 0 to 1,"),
        (plain_page(sponsored_cap=-1), "sponsored_cap must be at least 0"),
        (plain_page(placements={"top": {"brand_cap": -1}}), "brand_cap must be at least 0"),
        (plain_page(slots=[{"pin": "a"}] * 2, profiles={"click": [1, 1]}), "a product must be pinned once"),
        (plain_page(pricing=["next"]), "Invalid enum value 'next'"),
        (plain_page(colour="red"), "unknown field `colour`"),
        (plain_page(ad_colour="red"), "unknown field `colour`"),
    ],
)
def test_a_page_out_of_bounds_is_refused_by_name(page: dict[str, Any], rule: str) -> None:
    with pytest.raises(ValueError, match=rule):
        solve_page(page)


def test_a_page_read_by_its_type_keeps_every_digit() -> None:
    page = msgspec.json.decode(encode(plain_page(ad_bid=Decimal("999.999999"), pricing=["first"])), type=SolvePage)
    assert solve_page(page)["first"] == {"a": Decimal("999.999999")}


def test_where_caps_cross_the_page_stays_greedy_and_says_so() -> None:
    """A product stands in one of two placements, each of which counts brands for itself."""
    ads = [
        {"id": name, "brand": brand, "type": "click", "bid": bid}
        for name, brand, bid in (("a", "A", 4), ("b", "A", 3), ("c", "B", 2))
    ]
    placements = {"top": {"brand_cap": 1}, "side": {"brand_cap": 1}}
    slots = [{"placement": "top"}] * 2 + [{"placement": "side"}] * 2
    page = {"slots": slots, "profiles": {"click": [1, 0.9, 0.8, 0.7]}, "ads": ads, "placements": placements}
    answer = solve(page | {"allocation": "exact"})
    assert answer.pop("allocation_used") == "greedy"
    assert answer == solve(page)


def test_attention_may_rise_down_a_page_given_to_the_kernel_alone() -> None:
    page = plain_page(slots=[{}, {}], profiles={"click": [0.5, 1]})
    for allocation in ("greedy", "exact"):
        assert solve(page | {"allocation": allocation})["fills"] == [None, "a"]


@pytest.mark.parametrize("allocation", ["greedy", "exact"])
def test_every_bound_at_once_is_solved_to_the_micro(allocation: str) -> None:
    """64 slots, everything as large as it may be: one advertiser fewer than slots, so only floors set prices."""
    ads = [
        {
            "id": f"a{n:02}",
            "brand": f"B{n:02}",
            "type": "click",
            "bid": 1000,
            "weight": 4,
            "value": 1000,
            "floor": 999.999999,
        }
        for n in range(63)
    ]
    page = {"slots": [{}] * 64, "profiles": {"click": [1] * 64}, "ads": ads, "pricing": ["critical", "vcg", "first"]}
    answer = solve(page | {"allocation": allocation})
    assert answer["fills"] == [*(ad["id"] for ad in ads), None]
    assert answer["welfare"] == 63 * 5000
    assert set(answer["critical"].values()) == set(answer["vcg"].values()) == {Decimal("999.999999")}
    assert set(answer["first"].values()) == {1000}
    more = [{**ad, "id": f"b{n:02}", "brand": f"C{n:02}"} for n, ad in enumerate(ads[:4])]
    answer = solve(page | {"allocation": allocation, "ads": ads + more})
    assert set(answer["critical"].values()) == {1000}, "somebody as dear is left without a slot"
