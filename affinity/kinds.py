"""Products by what they are: category and brand of each, as a snapshot or a training's catalogue has them."""

from collections.abc import Mapping, Sequence

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from affinity.catalog import CATEGORY_SEPARATOR, Product, category_and_ancestors
from affinity.kernel import KNOWN, SCARCE, SEEN_COUNT, UNSEEN, Kinds

Float64s = NDArray[np.float64]
Int32s = NDArray[np.int32]
Int64s = NDArray[np.int64]

NONE_ROW = -1
SCARCE_COUNT = 5  # events, with fewer a product is hardly known
POPULARITY_LIFT_POWER = 0.25
POPULARITY_LIFT = (0.5, 3.0)


class ProductAttributes(Struct, frozen=True, eq=False):
    """Category and brand of P products in G categories; see `kernel.Kinds`.

    Attributes:
        category_row: row of each category by its path; in the order of paths, what is below one follows it.
        category: (P,) NONE_ROW for none.
        brand: (P,) a number no other product has where there is none.
        category_end: (G,) where what is below each ends.
        by_category: (P,) products in the order of their category, those of none first.
        category_first: (G + 1,) where each category's begin in it.
    """

    category_row: Mapping[str, int]
    category: Int32s
    brand: Int32s
    category_end: Int64s
    by_category: Int32s
    category_first: Int64s

    def is_like(self, other: "ProductAttributes | None") -> bool:
        """Say whether these are the same products, by category and brand."""
        return (
            other is not None
            and self.category_row == other.category_row
            and np.array_equal(self.category, other.category)
            and np.array_equal(self.brand, other.brand)
        )


def read_attributes(products: Sequence[Product | None]) -> ProductAttributes:
    """Return the attributes of products; None stands for one of which nothing is known."""
    paths = [(one and one.product_type) or "" for one in products]
    every = {above for path in set(paths) for above in category_and_ancestors(path)}
    ordered = sorted(every, key=lambda path: path.split(CATEGORY_SEPARATOR))
    row_of = {path: row for row, path in enumerate(ordered)}
    end = np.arange(1, len(ordered) + 1, dtype=np.int64)
    for row, path in enumerate(ordered):
        for above in category_and_ancestors(path):
            end[row_of[above]] = row + 1
    brands: dict[str, int] = {}
    brand = [
        brands.setdefault(one.brand, len(brands)) if one is not None and one.brand else -2 - at
        for at, one in enumerate(products)
    ]
    category = np.array([row_of.get(path, NONE_ROW) for path in paths], np.int32)
    by_category = np.argsort(category, kind="stable").astype(np.int32)
    first = np.searchsorted(category[by_category], np.arange(len(ordered) + 1)).astype(np.int64)
    return ProductAttributes(row_of, category, np.array(brand, np.int32), end, by_category, first)


def popularity_lift(views: Float64s) -> Float64s:
    """Return (P,) how much more than another a product is taken to be clicked for having been looked at so often."""
    usual = views.mean() if len(views) and views.mean() > 0 else 1.0
    return np.asarray(np.clip(((views + 1.0) / (usual + 1.0)) ** POPULARITY_LIFT_POWER, *POPULARITY_LIFT))


def kinds_of(attributes: ProductAttributes, views: Float64s) -> Kinds:
    """Return products as compiled code reads them.

    Args:
        attributes: theirs.
        views: (P,) how often each was looked at in what a model learnt from.
    """
    seen = np.where(views >= SCARCE_COUNT, KNOWN, np.where(views > 0, SCARCE, UNSEEN)).astype(np.int32)
    usual = popularity_lift(views).astype(np.float32)
    return Kinds(
        np.array(attributes.category, np.int32),
        np.array(attributes.brand, np.int32),
        seen,
        usual,
        np.array(attributes.category_end, np.int64),
        np.array(attributes.by_category, np.int32),
        np.array(attributes.category_first, np.int64),
        np.bincount(seen, usual, SEEN_COUNT).astype(np.float64),
    )
