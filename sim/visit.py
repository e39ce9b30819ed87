"""One simulated visit: which pages a visitor opens, what it looks for there, what it does with what it sees.

Draws from a stream of its own, so that a change elsewhere (a floor, a bidder) meets the same visitors.
"""

from msgspec import Struct

from auction.request import PageType
from sim.chance import Stream
from sim.scenario import Scenario
from sim.world import HOME, World

PAGE_COUNT_MAX = 60
READING_MS_MIN = 8_000
READING_MS_SPREAD = 60_000
_LIKED_WEIGHTS = (5, 8, 10)  # running: a visitor opens the category it likes best half of the time


class PageView(Struct, frozen=True):
    """A page about to be opened.

    Attributes:
        category_row: whose assortment it shows; HOME for the home page's.
        product_row: the product of a product page, else None.
    """

    type: PageType
    category_row: int
    product_row: int | None = None


class Visit:
    """One visit in progress."""

    __slots__ = ("_continues_ppm", "_scenario", "_types", "_world", "page_count", "row", "stream", "visitor_row")

    def __init__(self, row: int, visitor_row: int, key: int, scenario: Scenario, world: World) -> None:
        self.row = row
        self.visitor_row = visitor_row
        self.stream = Stream(key)
        self.page_count = 0
        self._scenario, self._world = scenario, world
        pages = scenario.traffic.pages_per_session
        self._continues_ppm = (pages - 1) * 1_000_000 // pages
        mix = scenario.traffic.page_mix
        self._types = (mix.get("home", 0), mix.get("category", 0), mix.get("search", 0))

    def open_first(self) -> PageView:
        """Return the page the visit begins on."""
        return self._open_some()

    def open_next(self, clicked_row: int | None) -> PageView | None:
        """Return the page after this one, or None where the visit ends. A clicked product is always looked at."""
        self.page_count += 1
        goes_on = self.stream.happens(self._continues_ppm)
        if self.page_count >= PAGE_COUNT_MAX:
            return None
        if clicked_row is not None:
            return PageView("product", int(self._world.product_category[clicked_row]), clicked_row)
        return self._open_some() if goes_on else None

    def reading_ms(self) -> int:
        """Return how long the visitor stays on a page."""
        return READING_MS_MIN + self.stream.below(READING_MS_SPREAD)

    def _open_some(self) -> PageView:
        home, category, search = self._types
        drawn = self.stream.below(home + category + search)
        if drawn < home:
            self.stream.next()
            self.stream.next()
            return PageView("home", HOME)
        return PageView("category" if drawn < home + category else "search", self._category())

    def _category(self) -> int:
        """Choose a category: three times in four one of those liked."""
        is_liked, draw = self.stream.happens(750_000), self.stream
        if is_liked:
            return int(self._world.liked_category[self.visitor_row, draw.choose(_LIKED_WEIGHTS)])
        return draw.below(len(self._world.category_id))
