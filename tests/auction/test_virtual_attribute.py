"""Virtual attributes: what they are of a product, and that rules and filters read them like a column of the feed."""

from pathlib import Path
from typing import Any

import pytest

from affinity.navigation import Action
from affinity.pattern import NavigationPattern, PatternStep
from affinity.product_target import Target
from auction.builder import SnapshotMaker, build_snapshot
from auction.request import Page
from auction.retailer_rule import Effect
from auction.snapshot import Snapshot
from auction.virtual_attribute import (
    Case,
    Derivation,
    Expression,
    VirtualAttribute,
    compile_expression,
    type_of,
    values_of,
)
from tests.auction.worlds import NOW, NOW_MS, World, bid, product, request, rule, source

PRODUCTS = [
    product("p1", title="Olive oil 750 ml", price_micros=4_000_000),
    product("p2", title="OIL 50cl", price_micros=9_000_000),
    product("p3", title="Bread", brand="", price_micros=20_000_000),
]


def virtual(name: str, kind: Any, **made_of: Any) -> VirtualAttribute:
    fields: dict[str, Any] = {"derived": None, "matched": None} | made_of
    return VirtualAttribute(
        virtual_attribute_id=f"vat_{name}", name=name, type=kind, status="active", created_at=NOW, updated_at=NOW,
        change_seq=1, **fields,
    )  # fmt: skip


def priced(at_most: float) -> Target:
    return Target(field="price_micros", at_most=at_most)


@pytest.mark.parametrize(
    ("matched", "values"),
    [
        (Expression(field="title", expression="oil"), [True, True, False]),
        (Expression(field="title", expression="oil", ignore_case=False), [True, False, False]),
        (Expression(field="title", expression=r"(\d+)\s?(?:ml|cl)", group=1), ["750", "50", None]),
        (Expression(field="title", expression=r"\d+\s?(?:ml|cl)", group=0), ["750 ml", "50cl", None]),
        (Expression(field="title", expression=r"(x)?o", group=1), [None, None, None]),
        (Expression(field="brand", expression="^brand-p[12]$"), [True, True, False]),
        (Expression(field="product_id", expression="[23]$", group=0), [None, "2", "3"]),
        (Expression(field="unheard_of", expression="a"), [False, False, False]),
    ],
)
def test_an_expression_says_whether_it_is_found_or_what_a_group_matched(matched: Expression, values: Any) -> None:
    assert values_of(None, matched, PRODUCTS, NOW_MS) == values


def test_of_several_cases_the_first_counts() -> None:
    cases = [Case(target=priced(5_000_000), value="low"), Case(target=priced(10_000_000), value="middle")]
    assert values_of(Derivation(cases=cases), None, PRODUCTS, NOW_MS) == ["low", "middle", None]
    assert values_of(Derivation(cases=cases, otherwise="high"), None, PRODUCTS, NOW_MS) == ["low", "middle", "high"]


@pytest.mark.parametrize("expression", [r"(a)\1", "(?=a)", "(?<!a)b", "(", "a{5,2}", "[", "a{2000}"])
def test_what_is_no_linear_expression_is_refused_with_its_place(expression: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        compile_expression(Expression(field="title", expression=expression))


def test_an_expression_that_would_blow_up_elsewhere_takes_time_linear_in_the_text() -> None:
    """Python's own engine would not come back from these."""
    slow = product("p1", title="a" * 500)
    for expression in ("(a*)*b", "(a|a)*b", "(a+)+$b", "a*a*a*a*a*a*a*a*b"):
        wanted = Expression(field="title", expression=expression)
        assert values_of(None, wanted, [slow] * 50, NOW_MS) == [False] * 50


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([True, False], "bool"),
        ([1, 2], "int"),
        ([1, 2.5], "float"),
        (["a"], "str"),
        ([True, 1], None),
        (["a", 1], None),
    ],
)
def test_values_have_one_type(values: Any, kind: Any) -> None:
    assert type_of(values) == kind


class TestInTheSnapshot:
    SIZE = virtual("size", "str", matched=Expression(field="title", expression=r"(\d+)\s?(?:ml|cl)", group=1))
    BAND = virtual("band", "float", derived=Derivation(cases=[Case(target=priced(5_000_000), value=1)], otherwise=2.5))

    def test_a_rules_target_asks_for_it(self) -> None:
        rules = [rule("rul_1", Effect(exclude=True), Target(field="size", equals="750"))]
        world = World(source(products=PRODUCTS, rules=rules, virtual_attributes=[self.SIZE]))
        assert {name for name, _ in world.winners(world.hold(request(mode="merchandised")))} == {"p2", "p3"}
        rules = [rule("rul_1", Effect(exclude=True), Target(field="band", at_least=2))]
        world = World(source(products=PRODUCTS, rules=rules, virtual_attributes=[self.BAND]))
        assert [name for name, _ in world.winners(world.hold(request(mode="merchandised")))] == ["p1"]

    def test_a_visitors_filter_asks_for_it(self) -> None:
        world = World(source(products=PRODUCTS, virtual_attributes=[self.SIZE, self.BAND]))

        def passing(**filters: Any) -> list[str]:
            page = Page(type="category", category_id="Shoes > Running", filters=filters)
            return [name for name, _ in world.winners(world.hold(request(page, mode="merchandised")))]

        assert passing(size=["750"]) == ["p1"]
        assert passing(band=[1]) == ["p1"]
        assert sorted(passing(band=[2.5])) == ["p2", "p3"]

    def test_it_stands_in_place_of_a_column_of_the_same_name(self) -> None:
        own = product("p1", title="Oil 750 ml", attributes={"size": "999"})
        world = World(source(products=[own], virtual_attributes=[self.SIZE]))
        assert world.snapshot.names.attribute_values["size"] == ["750"]
        assert own.attributes == {"size": "999"}


def test_a_bid_is_for_those_of_its_products_its_target_holds_for() -> None:
    season = virtual("season", "str", derived=Derivation(cases=[Case(target=priced(10_000_000), value="summer")]))
    asking = {
        "bid_1": Target(field="season", equals="summer"),
        "bid_2": Target(all=[Target(field="on_promotion", equals=False), Target(field="brand", equals="brand-p2")]),
        "bid_3": Target(field="season", equals="winter"),
        "bid_4": None,
    }
    bids = [bid(name, ["p1", "p2", "p3", "gone"], product_target=target) for name, target in asking.items()]
    made = source(products=PRODUCTS, bids=bids, virtual_attributes=[season])
    assert offered(build_snapshot(made)) == {
        ("bid_1", "p1"), ("bid_1", "p2"), ("bid_2", "p2"), ("bid_4", "p1"), ("bid_4", "p2"), ("bid_4", "p3"),
    }  # fmt: skip


def test_a_bids_target_follows_the_catalogue_and_the_attribute() -> None:
    asked = bid("bid_1", ["p1", "p2", "p3"], product_target=Target(field="season", equals="summer"))
    first = virtual("season", "str", derived=Derivation(cases=[Case(target=priced(5_000_000), value="summer")]))
    wider = virtual("season", "str", derived=Derivation(cases=[Case(target=priced(10_000_000), value="summer")]))
    cheaper = product("p3", title="Bread", brand="", price_micros=1_000_000)
    maker = SnapshotMaker()
    found = []
    for changes in (
        {"products": PRODUCTS, "bids": [asked], "virtual_attributes": [first]},
        {"products": [cheaper], "virtual_attributes": [first]},
        {"products": [], "virtual_attributes": [wider]},
        {"products": [], "virtual_attributes": []},
    ):
        maker.apply(source(**changes))
        found.append({product_id for _, product_id in offered(maker.make())})
    assert found == [{"p1"}, {"p1", "p3"}, {"p1", "p2", "p3"}, set()]


def looked_at(target: Target) -> NavigationPattern:
    return NavigationPattern(within=60, steps=[PatternStep(action=Action.VIEW_ITEM, product_target=target)])


def about(snapshot: Snapshot, target: Target) -> set[str]:
    sets = snapshot.product_sets()
    number = sets.number_of(target)
    return {name for name in ("p1", "p2", "p3", "gone") if sets.is_about(number, sets.row_of(name))}


def test_a_patterns_target_follows_the_catalogue_and_the_attribute(tmp_path: Path) -> None:
    summer, costly = Target(field="season", equals="summer"), Target(not_=priced(9e6))
    narrow = virtual("season", "str", derived=Derivation(cases=[Case(target=priced(5_000_000), value="summer")]))
    wider = virtual("season", "str", derived=Derivation(cases=[Case(target=priced(10_000_000), value="summer")]))
    cheaper = product("p3", title="Bread", brand="", price_micros=1_000_000)
    bids = [
        bid("bid_1", ["p1"], navigation_pattern=looked_at(summer)),
        bid("bid_2", ["p2"], navigation_pattern=looked_at(costly)),
        bid("bid_3", ["p2"], navigation_pattern=looked_at(summer)),
    ]
    maker = SnapshotMaker()
    found = []
    for changes in (
        {"products": PRODUCTS, "bids": bids, "virtual_attributes": [narrow]},
        {"products": [cheaper], "virtual_attributes": [narrow]},
        {"products": [], "virtual_attributes": [wider]},
    ):
        maker.apply(source(**changes))
        made = maker.make()
        assert len(made.product_sets()) == 2, "equal targets are one"
        made.save(tmp_path / "snapshot")
        for snapshot in (made, Snapshot.load(tmp_path / "snapshot")):
            found.append((about(snapshot, summer), about(snapshot, costly)))
    assert found[::2] == found[1::2]
    assert found[::2] == [({"p1"}, {"p3"}), ({"p1", "p3"}, set()), ({"p1", "p2", "p3"}, set())]
    only = [bid("bid_1", ["p1"], navigation_pattern=looked_at(costly)), bid("bid_2", ["p2"]), bid("bid_3", ["p2"])]
    maker.apply(source(products=[], bids=only, virtual_attributes=[wider]))
    assert len(maker.make().product_sets()) == 1
    assert about(maker.make(), costly) == set()
    assert build_snapshot(source()).columns.pattern_target_bits.size == 0


def offered(snapshot: Snapshot) -> set[tuple[str, str]]:
    offers = snapshot.columns.offer
    return {(snapshot.bid_id[int(one["bid_row"])], snapshot.product_id[one["product_row"]]) for one in offers}
