"""Random visitors and random patterns that often hold of them."""

import random
from collections.abc import Mapping, Sequence

from affinity.catalog import Attribute, Product
from affinity.matching import Happening
from affinity.navigation import Action
from affinity.pattern import NavigationPattern, PatternStep, product_targets_of
from affinity.product_sets import ProductSets, pack_masks
from affinity.product_target import CatalogueColumns, Target, target_mask
from tests.affinity.naive import SESSION_GAP_MS

START_MS = 1_700_000_000_000
MINUTE_MS = 60_000
VIEW, CART, SEARCH, BUY = Action.VIEW_ITEM, Action.ADD_TO_CART, Action.SEARCH, Action.PURCHASE

CATEGORIES = ["A", "A > B", "A > B > C", "A > D", "E", None]
Catalogue = Mapping[str, Mapping[str, Attribute]]
PRODUCT_IDS = ["p", "q", "r", "gone"]  # the last one is in no catalogue
TARGETS = [
    Target(field="season", equals="summer"),
    Target(field="season", one_of=["summer", "winter"]),
    Target(field="weight", at_least=2, at_most=5),
    Target(field="weight", equals=1),
    Target(field="is_new", equals=True),
    Target(field="unheard_of", equals=1),
    Target(not_=Target(field="season", equals="summer")),
    Target(all=[Target(field="season", equals="summer"), Target(field="weight", at_most=3)]),
    Target(any=[Target(field="weight", at_least=5), Target(not_=Target(field="is_new", equals=True))]),
]
QUERIES = ["red shoe", "blue shoe", "shoe", "", None]


def random_event(rng: random.Random) -> Happening:
    return Happening(
        at_ms=START_MS + rng.choice((rng.randrange(8) * 15 * MINUTE_MS, rng.randrange(120 * MINUTE_MS))),
        action=rng.choice([VIEW, VIEW, CART, SEARCH, BUY]),
        product_id=rng.choice([*PRODUCT_IDS, None]),
        category_id=rng.choice(CATEGORIES),
        brand=rng.choice(["X", "Y", None]),
        price_micros=rng.choice([None, 1, 5, 9]),
        query=rng.choice(QUERIES),
        traffic_source=rng.choice([None, None, "mail", "search / ads"]),
    )


def random_step(rng: random.Random, can_repeat: bool) -> PatternStep:
    def maybe(choices: list[object]) -> object:
        return rng.choice(choices) if rng.random() < 0.25 else None

    return PatternStep(
        action=rng.choice([VIEW, VIEW, CART, SEARCH, BUY]),
        at_least=rng.choice([1, 1, 2, 3]) if can_repeat else 1,
        category_id=maybe(["A", "A > B", "E"]),
        brand=maybe(["X", "Y"]),
        product_id=maybe(["p", "q"]),
        price_at_least_micros=maybe([1, 5]),
        price_at_most_micros=maybe([5, 9]),
        query_contains=maybe(["shoe", "red shoe"]),
        traffic_source=rng.choice(["Mail", "search / ads"]) if rng.random() < 0.08 else None,
        product_target=rng.choice(TARGETS) if rng.random() < 0.15 else None,
    )  # type: ignore[arg-type]


def random_catalogue(rng: random.Random) -> Catalogue:
    """Return the attributes of each product; many lack some."""

    def attributes() -> dict[str, Attribute]:
        given: dict[str, Attribute] = {
            "season": rng.choice(["summer", "winter"]),
            "weight": rng.choice([1, 3, 5]),
            "is_new": rng.random() < 0.5,
        }
        return {name: value for name, value in given.items() if rng.random() < 0.8}

    return {product_id: attributes() for product_id in PRODUCT_IDS[:-1]}


def sets_of(patterns: Sequence[NavigationPattern], catalogue: Catalogue) -> ProductSets:
    """Return which products of a catalogue the patterns' product targets are about, as a snapshot has it."""
    products = [Product(product_id=name, attributes=dict(attributes)) for name, attributes in catalogue.items()]
    targets = product_targets_of(patterns)
    columns = CatalogueColumns(products, START_MS)
    bits = pack_masks((target_mask(target, columns) for target in targets), len(targets), len(products))
    return ProductSets(targets, {product.product_id: row for row, product in enumerate(products)}, bits)


def random_pattern(rng: random.Random) -> NavigationPattern:
    return NavigationPattern(
        within=rng.choice(["session", 900, 1800, 3600, 6000]),
        steps=[random_step(rng, can_repeat=True) for _ in range(rng.choice([1, 1, 2, 2, 3]))],
        without=[random_step(rng, can_repeat=False) for _ in range(rng.choice([0, 0, 1, 2]))],
    )


def random_history(rng: random.Random) -> list[Happening]:
    """Return events in the order they arrive: often out of order, with equal times and pauses between sessions."""
    history = [random_event(rng) for _ in range(rng.randrange(1, 25))]
    if rng.random() < 0.6:
        history.sort(key=lambda event: event.at_ms)
    return history


def random_moment(rng: random.Random, history: list[Happening]) -> int:
    return max(event.at_ms for event in history) + rng.choice(
        [-MINUTE_MS, 0, MINUTE_MS, SESSION_GAP_MS, SESSION_GAP_MS + 1, rng.randrange(100 * MINUTE_MS)]
    )
