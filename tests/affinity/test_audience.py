"""Audiences: what is refused when saved, and by which pointer."""

import random
import time

import pytest

from affinity.audience import Audience, NamedAudience, Vocabulary, choices_of, validate_audience
from affinity.computed import DAY_MS, CustomerScale
from affinity.contradiction import Assumptions
from affinity.errors import AudienceRefused, SpecialCategoryRefused
from affinity.matching import Happening
from affinity.navigation import Action
from affinity.profile import ProfileDraft
from affinity.record import VisitorRecord
from affinity.settings import Settings
from affinity.targets import compile_targets, has_bit

NOW_MS = 1_700_000_000_000

KNOWN = Vocabulary(
    segments=frozenset({"vip"}),
    categories=frozenset({"A", "A > B"}),
    attribute_types={"age": "int", "size": "float", "city": "str", "is_pro": "bool", "loyalty_tier": "str"},
)
VIP = Audience(segment="vip")
LOYAL = Audience(rfm=["loyal", "champion"])


def choice(name: str | None, *audiences: Audience) -> Audience:
    """Return a list of audiences named a, b, …, and the one meant."""
    named = [NamedAudience(name=letter, audience=one) for letter, one in zip("abcdef", audiences, strict=False)]
    return Audience(list_=named, is_=name)


def bought(days: int, category_id: str = "A") -> Audience:
    return Audience(bought_category_within_days=days, category_id=category_id)


def since(low: int | None, high: int | None = None, which: str = "last") -> Audience:
    return Audience(counter=f"days_since_{which}_order", at_least=low, at_most=high)  # type: ignore[arg-type]


def entered(days: int, origin: str | None = None) -> Audience:
    return Audience(entered_segment="lifecycle:lapsing", from_segment=origin, within_days=days)


def refusal(audience: Audience, **more: bool) -> tuple[str, str | None]:
    with pytest.raises(AudienceRefused) as refused:
        validate_audience(audience, KNOWN, "/audience", **more)
    return refused.value.code, refused.value.pointer


@pytest.mark.parametrize(
    "audience",
    [
        VIP,
        Audience(all=[VIP, Audience(score="promophile", at_least=60)]),
        Audience(any=[VIP, Audience(not_=Audience(bought_brand_within_days=90, brand="X"))]),
        Audience(rfm=["champion", "loyal"]),
        Audience(lifecycle=["lapsing"]),
        Audience(clv_tier=["high", "top"]),
        Audience(loyalty_tier=["gold"]),
        Audience(order_status=["returned", "partly_returned"]),
        Audience(entered_segment="vip", within_days=7),
        entered(30, "lifecycle:active"),
        choice("a", VIP, LOYAL),
        choice("other", VIP, LOYAL),
        Audience(not_=choice("b", VIP, LOYAL)),
        Audience(counter="order_count", at_least=2),
        Audience(attribute="age", at_least=18, at_most=30),
        Audience(attribute="city", one_of=["Lyon", "Lille"]),
        Audience(attribute="size", equals=42),
        Audience(bought_product_within_days=1, product_ids=["p"]),
        Audience(bought_category_within_days=1, category_id="A"),
        Audience(affinity_category="A > B", at_least=0.2),
        Audience(affinity_brand="X", at_least=0),
        Audience(all=[Audience(attribute="age", at_least=18), Audience(attribute="age", at_most=18)]),
    ],
)
def test_every_predicate_can_be_saved(audience: Audience) -> None:
    validate_audience(audience, KNOWN)


@pytest.mark.parametrize(
    ("audience", "code", "pointer"),
    [
        (Audience(), "audience_empty", "/audience"),
        (Audience(not_=Audience()), "audience_empty", "/audience/not"),
        (Audience(segment="vip", rfm=["loyal"]), "audience_ambiguous", "/audience"),
        (Audience(segment="vip", at_least=1), "audience_ambiguous", "/audience/at_least"),
        (Audience(segment="gone"), "segment_unknown", "/audience/segment"),
        (Audience(all=[VIP, Audience(segment="gone")]), "segment_unknown", "/audience/all/1/segment"),
        (Audience(attribute="gone", equals=1), "attribute_unknown", "/audience/attribute"),
        (Audience(attribute="age"), "audience_incomplete", "/audience"),
        (Audience(attribute="age", equals=1, at_least=1), "audience_incomplete", "/audience"),
        (Audience(attribute="city", at_least=1), "attribute_type_differs", "/audience"),
        (Audience(attribute="age", one_of=[1, "x"]), "attribute_type_differs", "/audience/one_of/1"),
        (Audience(attribute="is_pro", equals=1), "attribute_type_differs", "/audience/equals"),
        (Audience(score="promophile"), "audience_incomplete", "/audience"),
        (Audience(score="promophile", at_least=101), "audience_contradictory", "/audience/at_least"),
        (Audience(attribute="age", at_least=3, at_most=2), "audience_contradictory", "/audience"),
        (Audience(affinity_brand="X", at_least=1.5), "audience_contradictory", "/audience/at_least"),
        (Audience(affinity_category="C", at_least=0.1), "category_unknown", "/audience/affinity_category"),
        (Audience(bought_category_within_days=1), "audience_incomplete", "/audience"),
        (Audience(bought_category_within_days=1, category_id="C"), "category_unknown", "/audience/category_id"),
        (Audience(bought_product_within_days=1, product_ids=[]), "audience_incomplete", "/audience/product_ids"),
        (Audience(bought_brand_within_days=1), "audience_incomplete", "/audience"),
        (Audience(rfm=["loyal", "rich"]), "rfm_class_unknown", "/audience/rfm/1"),
        (Audience(lifecycle=["dead"]), "lifecycle_unknown", "/audience/lifecycle/0"),
        (Audience(all=[VIP, Audience(not_=VIP)]), "audience_contradictory", "/audience/all/1"),
        (
            Audience(all=[Audience(score="price_tier", at_least=60), Audience(score="price_tier", at_most=50)]),
            "audience_contradictory",
            "/audience/all/1",
        ),
        (Audience(all=[Audience(rfm=["lost"]), Audience(rfm=["loyal"])]), "audience_contradictory", "/audience/all/1"),
        (
            Audience(all=[Audience(attribute="city", equals="A"), Audience(attribute="city", one_of=["B"])]),
            "audience_contradictory",
            "/audience/all/1",
        ),
    ],
)
def test_what_says_nothing_or_names_nothing_is_refused_where_it_stands(
    audience: Audience, code: str, pointer: str
) -> None:
    assert refusal(audience) == (code, pointer)


@pytest.mark.parametrize(
    ("audience", "code", "pointer"),
    [
        (Audience(clv_tier=["rich"]), "clv_tier_unknown", "/audience/clv_tier/0"),
        (Audience(order_status=["lost"]), "order_status_unknown", "/audience/order_status/0"),
        (Audience(entered_segment="vip"), "audience_incomplete", "/audience"),
        (Audience(entered_segment="gone", within_days=1), "segment_unknown", "/audience/entered_segment"),
        (entered(1, "gone"), "segment_unknown", "/audience/from_segment"),
        (entered(1, "lifecycle:lapsing"), "audience_contradictory", "/audience/from_segment"),
        (Audience(counter="order_count", at_most=-1), "audience_contradictory", "/audience/at_most"),
        (choice(None, VIP), "audience_incomplete", "/audience"),
        (choice("c", VIP, LOYAL), "audience_name_unknown", "/audience/is"),
        (choice("b", VIP, Audience(segment="gone")), "segment_unknown", "/audience/list/1/audience/segment"),
        (choice("b", VIP, VIP), "audience_contradictory", "/audience"),
        (choice("b", Audience(any=[VIP, LOYAL]), VIP), "audience_contradictory", "/audience"),
        (Audience(segment="vip", is_="a"), "audience_ambiguous", "/audience/is"),
        (
            Audience(list_=[NamedAudience(name="other", audience=VIP)], is_="other"),
            "audience_ambiguous",
            "/audience/list/0/name",
        ),
    ],
)
def test_what_is_new_is_refused_where_it_stands_too(audience: Audience, code: str, pointer: str) -> None:
    assert refusal(audience) == (code, pointer)


NOT_VIP = Audience(not_=VIP)
ORDERED = Audience(counter="order_count", at_least=1)


def age(low: int | None, high: int | None = None) -> Audience:
    return Audience(attribute="age", at_least=low, at_most=high)


@pytest.mark.parametrize(
    "together",
    [
        [VIP, Audience(all=[LOYAL, NOT_VIP])],
        [VIP, Audience(not_=Audience(any=[LOYAL, VIP]))],
        [VIP, Audience(any=[NOT_VIP, Audience(all=[NOT_VIP, LOYAL])])],
        [LOYAL, Audience(not_=Audience(rfm=["champion", "loyal", "lost"]))],
        [Audience(not_=Audience(lifecycle=["prospect", "new", "active", "lapsing", "lost"]))],
        [Audience(lifecycle=["prospect"]), ORDERED],
        [Audience(lifecycle=["prospect"]), LOYAL],
        [Audience(lifecycle=["prospect"]), Audience(clv_tier=["low"])],
        [Audience(counter="order_count", at_most=0), bought(5)],
        [Audience(counter="order_count", at_most=0), since(1)],
        [Audience(not_=ORDERED), LOYAL],
        [Audience(lifecycle=["lapsing"]), since(None, 30)],
        [Audience(lifecycle=["new"]), since(31, None, "first")],
        [since(10), bought(5)],
        [since(10), since(None, 5, "first")],
        [bought(5, "A > B"), Audience(not_=bought(10, "A"))],
        [age(18, 30), Audience(not_=age(10, 40))],
        [age(18, 30), Audience(not_=age(None, 25)), Audience(not_=age(20, None))],
        [Audience(attribute="age", equals=3), age(5)],
        [
            Audience(attribute="city", equals="Lyon"),
            Audience(not_=Audience(attribute="city", one_of=["Lyon", "Lille"])),
        ],
        [Audience(attribute="loyalty_tier", equals="gold"), Audience(loyalty_tier=["silver"])],
        [Audience(affinity_brand="X", at_least=0.6), Audience(affinity_brand="Y", at_least=0.6)],
        [entered(7, "lifecycle:active"), Audience(not_=entered(30))],
        [entered(7), Audience(not_=entered(7))],
        [choice("a", VIP, LOYAL), choice("other", VIP, LOYAL)],
    ],
)
def test_what_nobody_can_be_is_refused_whole_and_within(together: list[Audience]) -> None:
    whole = together[0] if len(together) == 1 else Audience(all=together)
    assert refusal(whole) == (
        "audience_contradictory",
        f"/audience/all/{len(together) - 1}" if together[1:] else "/audience",
    )
    assert refusal(Audience(any=[LOYAL, Audience(all=[*together, VIP])]))[0] == "audience_contradictory"
    assert refusal(Audience(not_=Audience(not_=whole)))[0] == "audience_contradictory"
    everybody = Audience(any=[Audience(not_=one) for one in together])
    assert refusal(Audience(not_=everybody))[0] == "audience_contradictory"


@pytest.mark.parametrize(
    "together",
    [
        [VIP, Audience(any=[NOT_VIP, LOYAL])],
        [Audience(not_=age(10, 40)), Audience(not_=age(None, 50)), Audience(not_=age(30))],  # nothing known of the age
        [age(18, 30), Audience(not_=age(20, 40)), Audience(not_=age(None, 17))],
        [Audience(lifecycle=["prospect", "lost"]), LOYAL],
        [Audience(lifecycle=["lapsing"]), since(90, 180)],
        [Audience(lifecycle=["new"]), since(30, 30, "first")],
        [since(5), bought(5)],
        [bought(10, "A > B"), Audience(not_=bought(5, "A"))],
        [bought(5, "A"), Audience(not_=bought(10, "A > B"))],
        [Audience(not_=LOYAL), Audience(not_=Audience(rfm=["lost"]))],
        [Audience(not_=Audience(score="promophile", at_least=0, at_most=100)), VIP],
        [entered(30), Audience(not_=entered(7))],
        [entered(7), Audience(not_=entered(7, "lifecycle:active"))],
        [Audience(counter="order_count", at_least=1), Audience(not_=Audience(counter="order_count", at_most=3))],
    ],
)
def test_what_somebody_can_be_is_not_refused(together: list[Audience]) -> None:
    validate_audience(Audience(all=together), KNOWN)
    validate_audience(Audience(not_=Audience(any=[Audience(not_=one) for one in together])), KNOWN)


def test_no_audience_somebody_is_in_is_called_contradictory() -> None:
    """Whatever holds of a made-up visitor must pass; every tree is true of the visitor it was made for."""
    chance = random.Random(3)
    for _ in range(300):
        record = VisitorRecord(b"v")
        record.profile = ProfileDraft(
            segments=[one for one in ("vip", "b") if chance.random() < 0.5], attributes={"age": chance.randrange(60)}
        )
        for _ in range(chance.randrange(4)):
            at_ms = NOW_MS - chance.randrange(400 * DAY_MS)
            record.note(Happening(at_ms, Action.PURCHASE, "p", chance.choice(["A", "A > B"]), "X", 8), None, Settings())
        trees = [true_tree(chance, record, 3) for _ in range(4)]
        certain = Assumptions()
        assert all(certain.assume(tree) for tree in trees), trees


def true_tree(chance: random.Random, record: VisitorRecord, depth: int) -> Audience:
    """Return a random audience the visitor is in."""
    while True:
        tree = random_audience(chance, depth)
        bits, _ = compile_targets([tree], []).audience_bits(record, CustomerScale(), NOW_MS)
        if has_bit(bits, 0):
            return tree


def random_audience(chance: random.Random, depth: int) -> Audience:
    kind = chance.randrange(4) if depth else 3
    if kind == 0:
        return Audience(not_=random_audience(chance, depth - 1))
    if kind < 3:
        children = [random_audience(chance, depth - 1) for _ in range(chance.randrange(1, 4))]
        return Audience(all=children) if kind == 1 else Audience(any=children)
    low = chance.randrange(200)
    return chance.choice(
        [
            VIP,
            Audience(lifecycle=chance.sample(["prospect", "new", "active", "lapsing", "lost"], 2)),
            Audience(rfm=["lost", "hibernating"]),
            age(low // 4, low // 4 + 10),
            since(low, low + 60),
            since(low, None, "first"),
            Audience(counter="order_count", at_least=low // 60),
            bought(low + 1, chance.choice(["A", "A > B"])),
            Audience(clv_tier=["low"]),
        ]
    )


def test_a_large_tree_is_checked_at_once() -> None:
    tree = Audience(all=[Audience(any=[age(row, row + 40), bought(row + 1), VIP]) for row in range(20)])
    for _ in range(4):
        tree = Audience(any=[tree, Audience(not_=Audience(all=[LOYAL, bought(9), since(3)]))])
    began = time.perf_counter()
    validate_audience(tree, KNOWN)
    assert time.perf_counter() - began < 1


@pytest.mark.parametrize(
    ("audience", "pointer"),
    [
        (Audience(segment="diabetics"), "/audience/segment"),
        (Audience(any=[VIP, Audience(segment="trade_union_members")]), "/audience/any/1/segment"),
        (Audience(attribute="religion", equals="x"), "/audience/attribute"),
        (Audience(attribute="city", one_of=["Lyon", "Catholic"]), "/audience/one_of/1"),
        (Audience(entered_segment="pregnant", within_days=3), "/audience/entered_segment"),
        (choice("a", Audience(segment="gay men")), "/audience/list/0/audience/segment"),
    ],
)
def test_special_categories_of_data_are_aimed_at_by_nobody(audience: Audience, pointer: str) -> None:
    with pytest.raises(SpecialCategoryRefused) as refused:
        validate_audience(audience, KNOWN, "/audience")
    assert (refused.value.code, refused.value.pointer) == ("special_category", pointer)


def test_a_saved_list_stands_for_each_of_its_choices() -> None:
    whole = choice(None, VIP, LOYAL)
    validate_audience(whole, KNOWN, may_be_list=True)
    assert list(choices_of(whole)) == ["a", "b", "other"]
    assert choices_of(choice("a", VIP)) == choices_of(VIP) == {}
    with pytest.raises(AudienceRefused) as refused:
        validate_audience(choice(None, Audience(any=[VIP, LOYAL]), VIP), KNOWN, "/audience", may_be_list=True)
    assert (refused.value.code, refused.value.pointer) == ("audience_contradictory", "/audience/list/1")
    with pytest.raises(AudienceRefused):  # within, it must say whom it is about
        validate_audience(Audience(not_=whole), KNOWN, may_be_list=True)


def test_a_bids_own_audience_may_mean_its_products_brand() -> None:
    validate_audience(Audience(bought_brand_within_days=90), KNOWN, may_leave_brand_out=True)


def test_a_tree_that_is_too_deep_or_too_large_is_refused() -> None:
    deep = VIP
    for _ in range(16):
        deep = Audience(not_=deep)
    assert refusal(deep)[0] == "audience_too_deep"
    wide = Audience(any=[Audience(any=[VIP] * 32) for _ in range(32)])
    assert refusal(wide)[0] == "audience_too_deep"
