"""Where the shop's shelves are: one placement per shelf and generation, so that a generation is configuration alone."""

from msgspec import Struct

from auction.placement import OrganicSource

GENERATIONS = ("pinned", "affinity", "rules", "bids")
_SUFFIX = {"pinned": "-pinned", "affinity": "-affinity", "rules": "-rules", "bids": ""}


class ShelfPlan(Struct, frozen=True):
    """A shelf of the shop.

    Attributes:
        name: placement id in the fourth generation; the others get a suffix.
        heading: key of its heading among the shop's words.
        sponsored_max: most paid fills, in the fourth generation.
        organic_source: where its organic products come from; one of anything but `affinity` is left out while empty.
    """

    name: str
    page_type: str
    heading: str
    slot_count: int
    sponsored_max: int
    organic_source: OrganicSource = "affinity"

    def placement_id(self, generation: str) -> str:
        """Return the placement that shows the shelf in a generation."""
        return self.name + _SUFFIX[generation]


HOME_END_CAP = ShelfPlan("home-end-cap", "home", "shelf_home", 12, 4)
HOME_MORE = ShelfPlan("home-more", "home", "shelf_more", 18, 3)
CATEGORY_SHELF = ShelfPlan("category-shelf", "category", "shelf_category", 30, 6)
PRODUCT_MORE = ShelfPlan("product-more", "product", "shelf_product", 6, 2)
PRODUCT_VIEWED = ShelfPlan("product-viewed", "product", "shelf_viewed", 6, 0, "recently_viewed")
SHELVES = (HOME_END_CAP, HOME_MORE, CATEGORY_SHELF, PRODUCT_MORE, PRODUCT_VIEWED)
