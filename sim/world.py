"""The truth of a simulated shop: its catalogue, what each visitor likes, and when they come.

Whole numbers throughout, parts per million where others would write a float, so that a seed gives the same world on
every machine. The engine never sees this truth, only what the retailer would know: products, navigation, predictions.
"""

from datetime import date, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np
from msgspec import Struct

from affinity.catalog import CATEGORY_SEPARATOR, Product
from sim.chance import PPM, Int64s, Stream, key_of, whole_numbers
from sim.errors import ScenarioRefused
from sim.scenario import Scenario, Traffic

LIKED_CATEGORY_COUNT = 3
LIKED_BRAND_COUNT = 2
HOME_PRODUCT_COUNT = 120
CLICK_PPM_MAX = 600_000
HOME = -1  # stands for the home page's assortment where a category row is asked for

# Factors on the average click, in parts per million: how a match of visitor and product shows.
_CATEGORY_LIKED = (1_800_000, 1_400_000, 1_400_000)
_CATEGORY_OTHER = 700_000
_BRAND_LIKED = 1_500_000
_BRAND_OTHER = 950_000

_DEPARTMENTS = (
    "Bakery", "Drinks", "Fruit & vegetables", "Cheese", "Frozen", "Pantry",
    "Breakfast", "Snacks", "Baby", "Household", "Pets", "Beauty",
)  # fmt: skip


class World(Struct, frozen=True):
    """One world, as arrays. P products, C categories, B brands, V visitors.

    Attributes:
        products: (P,) what the retailer feeds.
        category_id: (C,) page of each category.
        product_category, product_brand: (P,) rows.
        price_micros: (P,) what a visitor pays now.
        price_rank_ppm: (P,) 0 for the cheapest of its category, 1,000,000 for the dearest.
        appeal_ppm: (P,) how much more often than the average product it is clicked.
        prediction_ppm: (P,) by how much the retailer's predictions are off for this product; 1,000,000 is right.
        assortment: (C + 1) product rows of each category's page, ascending; the last is the home page's.
        liked_category: (V, 3), liked_brand: (V, 2), sensitivity_ppm: (V,), consents: (V,).
    """

    products: list[Product]
    category_id: list[str]
    brand_name: list[str]
    product_category: Int64s
    product_brand: Int64s
    is_own_brand: list[bool]
    price_micros: Int64s
    price_rank_ppm: Int64s
    appeal_ppm: Int64s
    prediction_ppm: Int64s
    assortment: list[Int64s]
    liked_category: Int64s
    liked_brand: Int64s
    sensitivity_ppm: Int64s
    consents: list[bool]
    click_ppm: int
    order_ppm: int

    @property
    def visitor_count(self) -> int:
        """Count the visitors."""
        return len(self.consents)

    def true_click_ppm(self, visitor_row: int, rows: Int64s) -> Int64s:
        """Return how many of a million looks at each product end in a click of this visitor."""
        category = self.product_category[rows]
        liked = self.liked_category[visitor_row]
        match = np.full(rows.size, _CATEGORY_OTHER, dtype=np.int64)
        for place in range(LIKED_CATEGORY_COUNT - 1, -1, -1):
            match[category == liked[place]] = _CATEGORY_LIKED[place]
        brand_row = self.product_brand[rows]
        is_liked = brand_row == self.liked_brand[visitor_row, 0]
        for place in range(1, LIKED_BRAND_COUNT):
            is_liked |= brand_row == self.liked_brand[visitor_row, place]
        brand = np.where(is_liked, _BRAND_LIKED, _BRAND_OTHER)
        chance = self.click_ppm * self.appeal_ppm[rows] // PPM
        chance = chance * match // PPM * brand // PPM * self._price_factor(visitor_row, rows) // PPM
        return _bounded(chance, CLICK_PPM_MAX)

    def predicted_click_ppm(self, true_ppm: Int64s, rows: Int64s) -> Int64s:
        """Return what the retailer's model says instead of the truth."""
        return _bounded(true_ppm * self.prediction_ppm[rows] // PPM, PPM)

    def average_click_ppm(self, rows: Int64s) -> Int64s:
        """Return the retailer's prediction for a visitor it knows nothing of."""
        average = self.click_ppm * self.appeal_ppm[rows] // PPM * _BRAND_OTHER // PPM
        return _bounded(average * self.prediction_ppm[rows] // PPM, CLICK_PPM_MAX)

    def true_order_ppm(self, visitor_row: int, row: int) -> int:
        """Return how many of a million clicks of this visitor on the product end in an order."""
        factor = int(self._price_factor(visitor_row, np.array([row]))[0])
        return min(PPM, self.order_ppm * factor // PPM)

    def _price_factor(self, visitor_row: int, rows: Int64s) -> Int64s:
        """Return 1,000,000 at a middling price; the sensitive click the cheap more often and the dear less."""
        sensitivity_ppm = int(self.sensitivity_ppm[visitor_row])
        return PPM + sensitivity_ppm * (500_000 - self.price_rank_ppm[rows]) // PPM


def build_world(scenario: Scenario, seed: int) -> World:
    """Make the world of a scenario under one seed.

    Raises:
        ScenarioRefused: the catalogue it names is missing or has nothing in it.
    """
    settings = scenario.world
    if settings.catalogue == "synthetic":
        products, popularity = _synthetic_products(scenario, seed)
    else:
        products, popularity = _fed_products(settings.catalogue)
    count = len(products)
    category_id, product_category = _numbered([_page_of(product) for product in products])
    brand_name, product_brand = _numbered([product.brand for product in products])
    price = np.array([product.sale_price_micros or product.price_micros for product in products], dtype=np.int64)
    appeal = _appeal(popularity)
    noise = settings.quality_noise_ppm
    visitors, categories, brands = settings.visitor_count, len(category_id), len(brand_name)
    by_category = [np.flatnonzero(product_category == row).astype(np.int64) for row in range(categories)]
    home = np.sort(np.lexsort((np.arange(count), -appeal))[:HOME_PRODUCT_COUNT]).astype(np.int64)
    liked_category = whole_numbers(key_of(seed, "liked category"), visitors * LIKED_CATEGORY_COUNT, 0, categories - 1)
    liked_brand = whole_numbers(key_of(seed, "liked brand"), visitors * LIKED_BRAND_COUNT, 0, brands - 1)
    consent = whole_numbers(key_of(seed, "consent"), visitors, 0, PPM - 1) < settings.consent_ppm
    return World(
        products=products,
        category_id=category_id,
        brand_name=brand_name,
        product_category=product_category,
        product_brand=product_brand,
        is_own_brand=[product.is_own_brand for product in products],
        price_micros=price,
        price_rank_ppm=_ranks_ppm(price, by_category),
        appeal_ppm=appeal,
        prediction_ppm=whole_numbers(key_of(seed, "prediction"), count, PPM - noise, PPM + noise),
        assortment=[*by_category, home],
        liked_category=liked_category.reshape(visitors, LIKED_CATEGORY_COUNT),
        liked_brand=liked_brand.reshape(visitors, LIKED_BRAND_COUNT),
        sensitivity_ppm=whole_numbers(key_of(seed, "sensitivity"), visitors, 0, settings.sensitivity_ppm),
        consents=[bool(yes) for yes in consent],
        click_ppm=scenario.clicks.click_ppm,
        order_ppm=scenario.clicks.order_ppm,
    )


class SessionStart(Struct, frozen=True):
    """A visit: when it begins (UTC, ms since 1970) and by whom."""

    at_ms: int
    visitor_row: int


def session_starts(traffic: Traffic, visitor_count: int, seed: int) -> list[SessionStart]:
    """Return every visit in order of time, spread over days and hours by the traffic's weights."""
    midnight = local_midnights_ms(traffic)
    day_weights = traffic.day_weights or [1] * traffic.days
    day_totals, hour_totals = _running(day_weights), _running(traffic.hour_weights)
    stream = Stream(key_of(seed, "sessions"))
    starts = []
    for _ in range(traffic.days * traffic.sessions_per_day):
        day, hour = stream.choose(day_totals), stream.choose(hour_totals)
        day_ms = midnight[day + 1] - midnight[day]
        within_ms = min(hour * 3_600_000 + stream.below(3_600_000), day_ms - 1)
        starts.append(SessionStart(midnight[day] + within_ms, stream.below(visitor_count)))
    return sorted(starts, key=lambda start: (start.at_ms, start.visitor_row))


def local_midnights_ms(traffic: Traffic) -> list[int]:
    """Return the start of each day and the end of the last, in UTC milliseconds; a day may have 23 or 25 hours."""
    first = date.fromisoformat(traffic.starts_on)
    zone = ZoneInfo(traffic.time_zone)
    days = [first + timedelta(days=day) for day in range(traffic.days + 1)]
    return [int(datetime(day.year, day.month, day.day, tzinfo=zone).timestamp()) * 1000 for day in days]


def _bounded(chance_ppm: Int64s, highest: int) -> Int64s:
    """Return the chances kept within 1 and the highest."""
    return np.minimum(np.maximum(chance_ppm, 1), highest)


def _running(weights: list[int]) -> list[int]:
    return [int(total) for total in np.cumsum(np.array(weights, dtype=np.int64))]


def _synthetic_products(scenario: Scenario, seed: int) -> tuple[list[Product], Int64s]:
    """Make products dealt out over categories, each category shared by a handful of brands."""
    settings = scenario.world
    count, categories, brands = settings.product_count, settings.category_count, settings.brand_count
    rivals = min(brands, max(4, brands // 6))
    brand_draw = whole_numbers(key_of(seed, "brand"), count, 0, rivals - 1)
    own_draw = whole_numbers(key_of(seed, "own brand"), count, 0, PPM - 1)
    base_cents = whole_numbers(key_of(seed, "category price"), categories, 90, 900)
    spread = whole_numbers(key_of(seed, "price"), count, 50, 220)
    products = []
    for row in range(count):
        category = row % categories
        is_own = bool(own_draw[row] < settings.own_brand_ppm)
        brand = "House brand" if is_own else f"Brand {(category * 7 + int(brand_draw[row])) % brands + 1:02d}"
        price_micros = int(base_cents[category] * spread[row] // 100) * 10_000
        department = _DEPARTMENTS[category % len(_DEPARTMENTS)]
        aisle = f"{department} aisle {category // len(_DEPARTMENTS) + 1}"
        products.append(
            Product(
                product_id=f"p{row:06d}",
                title=f"{aisle} no. {row // categories + 1} by {brand}",
                link=f"https://shop.example/p/{row:06d}",
                price_micros=price_micros,
                brand=brand,
                product_type=f"{department}{CATEGORY_SEPARATOR}{aisle}",
                is_own_brand=is_own,
                margin_rate=0.25,
            )
        )
    return products, whole_numbers(key_of(seed, "popularity"), count, 0, PPM)


def _fed_products(catalogue: str) -> tuple[list[Product], Int64s]:
    """Read a feed by the importer's own reader; `lines_sold`, where there is one, says how popular a product is."""
    from affinity.errors import FeedRefused
    from affinity.feed import BadLine, read_feed

    path = shipped_catalogue() if catalogue == "shipped" else Path(catalogue)
    if path is None:
        raise ScenarioRefused("world.catalogue: the demo's catalogue is not installed; use synthetic")
    products: list[Product] = []
    try:
        for product in read_feed(path):
            if isinstance(product, BadLine):
                raise ScenarioRefused(f"world.catalogue: {path}: line {product.line_number}: {product.message}")
            if product.product_type and product.brand and product.price_micros > 0:
                products.append(product)
    except FeedRefused as refusal:
        raise ScenarioRefused(f"world.catalogue: {path}: {refusal}") from refusal
    if len(products) < 2:
        raise ScenarioRefused(f"world.catalogue: {path} has no two products with a brand, a category and a price")
    sold = np.array([int(product.attributes.get("lines_sold") or 0) for product in products], dtype=np.int64)
    order = np.lexsort((np.arange(sold.size), sold))
    popularity = np.empty(sold.size, dtype=np.int64)
    popularity[order] = np.arange(sold.size, dtype=np.int64) * PPM // max(1, sold.size - 1)
    return products, popularity


def shipped_catalogue() -> Path | None:
    """Return the demo's feed, or None where the package came without it."""
    import bidder_api

    path = Path(next(iter(bidder_api.__path__))) / "demo_data" / "catalogue.tsv.gz"
    return path if path.is_file() else None


def _page_of(product: Product) -> str:
    """Return the category whose page the product stands on: two levels deep, as shops link them."""
    assert product.product_type is not None
    return CATEGORY_SEPARATOR.join(product.product_type.split(CATEGORY_SEPARATOR)[:2])


def _numbered(names: list[str]) -> tuple[list[str], Int64s]:
    """Return the distinct names in alphabetical order, and each name's row among them."""
    distinct = sorted(set(names))
    rows = {name: row for row, name in enumerate(distinct)}
    return distinct, np.array([rows[name] for name in names], dtype=np.int64)


def _appeal(popularity: Int64s) -> Int64s:
    """Turn popularity, even over 0 to 1,000,000, into a long tail that is 1,000,000 on average."""
    return 200_000 + 3_200_000 * (popularity * popularity // PPM * popularity // PPM) // PPM


def _ranks_ppm(price_micros: Int64s, by_category: list[Int64s]) -> Int64s:
    """Return each product's place among its category's prices; equal prices keep the catalogue's order."""
    ranks = np.full(price_micros.size, 500_000, dtype=np.int64)
    for rows in by_category:
        if rows.size > 1:
            order = np.lexsort((rows, price_micros[rows]))
            ranks[rows[order]] = np.arange(rows.size, dtype=np.int64) * PPM // (rows.size - 1)
    return ranks
