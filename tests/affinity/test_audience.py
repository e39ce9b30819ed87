"""Audiences: what is refused when saved, and by which pointer."""

import pytest

from affinity.audience import Audience, Vocabulary, validate_audience
from affinity.errors import AudienceRefused

KNOWN = Vocabulary(
    segments=frozenset({"vip"}),
    categories=frozenset({"A", "A > B"}),
    attribute_types={"age": "int", "size": "float", "city": "str", "is_pro": "bool"},
)
VIP = Audience(segment="vip")


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


def test_a_bids_own_audience_may_mean_its_products_brand() -> None:
    validate_audience(Audience(bought_brand_within_days=90), KNOWN, may_leave_brand_out=True)


def test_a_tree_that_is_too_deep_or_too_large_is_refused() -> None:
    deep = VIP
    for _ in range(16):
        deep = Audience(not_=deep)
    assert refusal(deep)[0] == "audience_too_deep"
    wide = Audience(any=[Audience(any=[VIP] * 32) for _ in range(32)])
    assert refusal(wide)[0] == "audience_too_deep"
