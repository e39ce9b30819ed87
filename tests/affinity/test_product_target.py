"""Targets over product fields: what they are about, and how they are said."""

from typing import Any

import msgspec
import pytest

from affinity.catalog import Product
from affinity.product_target import CatalogueColumns, Target, target_mask, target_words

PRODUCTS = [
    Product(product_id="p1", product_type="Shoes > Running", brand="A", price_micros=5, attributes={"x": 1}),
    Product(product_id="p2", product_type="Shoes", brand="B", price_micros=7, attributes={"x": True}),
    Product(product_id="p3", product_type="Shoestring", brand="", price_micros=9, attributes={"x": "1"}),
    Product(product_id="p4", product_type=None, brand="A", price_micros=9, attributes={"x": 1.0}),
    Product(product_id="p5", product_type="Hats", brand="B", price_micros=9),
]


@pytest.mark.parametrize(
    ("target", "about"),
    [
        ({"field": "x", "equals": 1}, "14"),
        ({"field": "x", "equals": True}, "2"),
        ({"field": "x", "equals": "1"}, "3"),
        ({"field": "x", "equals": False}, ""),
        ({"field": "x", "one_of": [True, "1"]}, "23"),
        ({"not": {"field": "x", "one_of": [True, "1"]}}, "145"),
        ({"field": "unheard_of", "equals": 1}, ""),
        ({"field": "brand", "equals": "A"}, "14"),
        ({"field": "brand", "equals": ""}, ""),
        ({"field": "category_id", "equals": "Shoes"}, "12"),
        ({"field": "category_id", "one_of": ["Hats", "Shoes > Running"]}, "15"),
        ({"field": "price_micros", "at_least": 7, "at_most": 8}, "2"),
        ({"field": "price_micros", "equals": 9, "at_least": 10}, ""),
        ({"any": [{"field": "brand", "equals": "B"}, {"field": "x", "equals": "1"}]}, "235"),
        ({"all": [{"field": "brand", "equals": "B"}, {"field": "price_micros", "at_most": 7}]}, "2"),
    ],
)
def test_a_target_is_about_what_it_holds_for(target: Any, about: str) -> None:
    mask = target_mask(msgspec.convert(target, Target), CatalogueColumns(PRODUCTS, 0))
    assert "".join(str(row + 1) for row in mask.nonzero()[0]) == about


def test_a_target_can_be_said() -> None:
    season, new = Target(field="season", one_of=["spring", 5, 2.5]), Target(field="is_new", equals=False)
    price = Target(field="price_micros", at_least=5, at_most=9.5)
    assert target_words(Target(any=[Target(all=[season, Target(not_=new)]), price])) == (
        "(season is one of spring, 5, 2.5 and not (is_new is false)) or price_micros is at least 5 and is at most 9.5"
    )
