"""The catalogue as the shop walks it: aisles, the categories below them, and a page for each product."""

import re
import unicodedata
from collections.abc import Iterable

from msgspec import Struct

from affinity.catalog import CATEGORY_SEPARATOR, Product
from bidder_api.shop.pictures import picture_of, picture_of_aisle

_AISLE_ORDER = [
    "Fruit & vegetables", "Meat & seafood", "Deli", "Dairy & eggs", "Bakery", "Frozen", "Breakfast", "Snacks & sweets",
    "Pantry", "Drinks", "Baby", "Household", "Health & beauty", "Pets", "Natural foods",
]  # fmt: skip


class ShopProduct(Struct, frozen=True, kw_only=True):
    """A product as a tile shows it."""

    product: Product
    name: str
    size: str
    picture: str
    url: str


class Category(Struct, frozen=True, kw_only=True):
    """A category that has a page: an aisle, or what is directly below one."""

    category_id: str
    name: str
    url: str
    picture: str
    children: list["Category"]


class ShopCatalogue:
    """What the shop's pages look products and categories up in. Built once; prices are those of the build."""

    def __init__(self, products: Iterable[Product]) -> None:
        self.products: dict[str, ShopProduct] = {}
        below: dict[str, set[str]] = {}
        for product in products:
            name, _, size = product.title.partition(" · ")
            category_id = product.product_type or ""
            self.products[product.product_id] = ShopProduct(
                product=product,
                name=name,
                size=size,
                picture=picture_of(product.product_id, name, category_id),
                url=f"/p/{product.product_id}",
            )
            parts = category_id.split(CATEGORY_SEPARATOR)
            if len(parts) > 1:
                below.setdefault(parts[0], set()).add(CATEGORY_SEPARATOR.join(parts[:2]))
        rank = {aisle: place for place, aisle in enumerate(_AISLE_ORDER)}
        self.aisles = [
            _category(aisle, [_category(child, []) for child in sorted(below[aisle])])
            for aisle in sorted(below, key=lambda aisle: (rank.get(aisle, len(rank)), aisle))
        ]
        every = [category for aisle in self.aisles for category in [aisle, *aisle.children]]
        self.category_of_url = {category.url: category for category in every}
        self.category_of_id = {category.category_id: category for category in every}

    def path_to(self, category_id: str) -> list[Category]:
        """Return the categories with a page from the aisle down to this one."""
        parts = category_id.split(CATEGORY_SEPARATOR)
        paths = [CATEGORY_SEPARATOR.join(parts[: depth + 1]) for depth in range(len(parts))]
        return [self.category_of_id[path] for path in paths if path in self.category_of_id]


def slug(text: str) -> str:
    """Return a text as it stands in an address.

    >>> slug("Jalapeño & other peppers")
    'jalapeno-other-peppers'
    """
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", "-", plain).strip("-")


def _category(category_id: str, children: list[Category]) -> Category:
    parts = category_id.split(CATEGORY_SEPARATOR)
    return Category(
        category_id=category_id,
        name=parts[-1],
        url="/c/" + "/".join(slug(part) for part in parts),
        picture=picture_of_aisle(parts[0]),
        children=children,
    )
