"""Navigation patterns: ordered steps of a visitor, checked against what exists when saved, counted and explained."""

from collections.abc import Callable, Sequence

import msgspec
from msgspec import Struct
from sqlalchemy.engine import Connection
from starlette.requests import Request
from starlette.responses import Response

from affinity.catalog import AdvertiserId, Product
from affinity.matching import Happening
from affinity.navigation import VisitorId
from affinity.pattern import (
    NavigationPattern,
    SavedPattern,
    product_fields_of,
    product_targets_of,
    validate_pattern,
)
from affinity.pattern_explanation import PatternExplanation, explain_pattern
from affinity.product_sets import NO_SETS, ProductSets, pack_masks
from affinity.product_target import CatalogueColumns, target_mask
from affinity.shared_visitors import SharedVisitors
from affinity.signals import NO_SIGNALS
from affinity.store import (
    get_pattern,
    get_products,
    insert_pattern,
    list_patterns,
    read_products_changed,
    read_signals,
    read_vocabulary,
    update_pattern,
)
from affinity.visitors import VisitorStore
from auction.campaign import Name
from auction.store import list_virtual_attributes
from auction.virtual_attribute import virtual_columns
from bidder_api.call import Desk, Endpoint
from bidder_api.errors import NotFound
from bidder_api.resources import page_of, patch_type
from bidder_api.rules import check_advertisers_target
from bidder_api.saved import SavedKind

ATTRIBUTE_COUNT_MAX = 10_000
CountPattern = Callable[[NavigationPattern], int | None]


class PatternDraft(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Body of `POST /v1/navigation-patterns`."""

    name: Name
    navigation_pattern: NavigationPattern
    advertiser_id: AdvertiserId | None = None  # only an admin or agency may say it


class CountedPattern(SavedPattern, frozen=True, kw_only=True):
    """A saved pattern, and for how many visitors it holds now: null under 50, which are never shown."""

    visitor_count: int | None


class ExplainQuery(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Query of `GET /v1/navigation-patterns/{pattern_id}/explain`."""

    visitor_id: VisitorId


class ExplainedPattern(PatternExplanation, frozen=True, kw_only=True):
    """A saved pattern, and how far one visitor is with it."""

    pattern_id: str
    advertiser_id: str
    name: str
    navigation_pattern: NavigationPattern
    visitor_id: str


PatternPatch = patch_type(PatternDraft, "PatternPatch", leave_out=["advertiser_id"])
PatternPage = page_of("Pattern", SavedPattern)

_encode = msgspec.json.Encoder().encode


def check_pattern(connection: Connection, retailer_id: str, pattern: NavigationPattern, pointer: str) -> None:
    """Check a pattern against the categories there are, then its product targets against the fields products have.

    Raises:
        PatternRefused: with the pointer of the first offending step.
        Invalid: a product target that is none, or asks for a field bids may not ask for.
    """
    validate_pattern(pattern, read_vocabulary(connection, retailer_id, pattern), pointer)
    for name, steps in (("steps", pattern.steps), ("without", pattern.without)):
        for row, step in enumerate(steps):
            if step.product_target is not None:
                at = f"{pointer}/{name}/{row}/product_target"
                check_advertisers_target(connection, retailer_id, step.product_target, at)


def answer_targets(
    connection: Connection, retailer_id: str, pattern: NavigationPattern, products: Sequence[Product], now_ms: int
) -> ProductSets:
    """Return which of some products the pattern's product targets are about, as the catalogue stands now."""
    if not product_fields_of(pattern):
        return NO_SETS
    targets, asked = product_targets_of([pattern]), product_fields_of(pattern)
    attributes = list_virtual_attributes(connection, retailer_id, None, ATTRIBUTE_COUNT_MAX, status="active")
    signals = read_signals(connection, retailer_id) or NO_SIGNALS
    virtual = virtual_columns([one for one in attributes if one.name in asked], products, now_ms, signals)
    columns = CatalogueColumns(products, now_ms, virtual)
    masks = (target_mask(target, columns) for target in targets)
    row_of = {product.product_id: row for row, product in enumerate(products)}
    return ProductSets(targets, row_of, pack_masks(masks, len(targets), len(products)))


def _check(connection: Connection, retailer_id: str, saved: SavedPattern) -> None:
    check_pattern(connection, retailer_id, saved.navigation_pattern, "/navigation_pattern")


def saved_patterns(count: CountPattern) -> SavedKind[SavedPattern]:
    """Return the operations on saved patterns.

    Args:
        count: for how many visitors a pattern holds now; None under the least number that is shown.
    """

    def show(saved: SavedPattern) -> CountedPattern:
        return CountedPattern(**msgspec.structs.asdict(saved), visitor_count=count(saved.navigation_pattern))

    return SavedKind(
        kind="pattern",
        path="/v1/navigation-patterns",
        prefix="pat",
        make=SavedPattern,
        check=_check,
        insert=insert_pattern,
        get=get_pattern,
        list_some=list_patterns,
        update=update_pattern,
        show=show,
    )


def pattern_counter(desk: Desk, visitors: VisitorStore, live: Callable[[], ProductSets]) -> CountPattern:
    """Return what says for about how many visitors a pattern holds now; None under the least number that is shown.

    Args:
        desk: where the catalogue is read where a product target is not among the live ones.
        visitors: the serving process's.
        live: which products the product targets of live bids are about.
    """

    def count(pattern: NavigationPattern) -> int | None:
        now_ms, sets = desk.clock_ms(), live()
        if not all(map(sets.has, product_targets_of([pattern]))):
            sets = desk.database.read(
                lambda connection: answer_targets(
                    connection,
                    desk.retailer_id,
                    pattern,
                    read_products_changed(connection, desk.retailer_id, -1),
                    now_ms,
                )
            )
        return visitors.count_matching(None, pattern, now_ms, sets)

    return count


def explain_endpoint(desk: Desk, visitors: VisitorStore, shared: SharedVisitors | None = None) -> Endpoint:
    """Return the endpoint of `GET /v1/navigation-patterns/{pattern_id}/explain`.

    Args:
        desk: where the pattern is read.
        visitors: the serving process's; looked at on its thread, for as long as it takes to copy one's events.
        shared: where other processes share them; None where they do not.
    """
    gap_ms = visitors.settings.session_gap_s * 1000

    async def endpoint(request: Request) -> Response:
        pattern_id: str = request.scope["path_params"]["pattern_id"]
        query: ExplainQuery = request.scope["query"]
        now_ms, pseudonym = desk.clock_ms(), visitors.pseudonym(query.visitor_id)
        if shared is not None:
            await shared.read(pseudonym)
        record = visitors.record(pseudonym)
        events = None if record is None else list(record.events)

        def explain() -> ExplainedPattern:
            saved, sets = desk.database.read(
                lambda connection: _read_for_events(connection, desk.retailer_id, pattern_id, events or (), now_ms)
            )
            pattern = saved.navigation_pattern
            return ExplainedPattern(
                **msgspec.structs.asdict(explain_pattern(pattern, events, gap_ms, now_ms, sets)),
                pattern_id=saved.pattern_id,
                advertiser_id=saved.advertiser_id,
                name=saved.name,
                navigation_pattern=saved.navigation_pattern,
                visitor_id=query.visitor_id,
            )

        answer = await desk.in_thread(request.scope["operation"], explain)
        return Response(_encode(answer), media_type="application/json", headers={"Cache-Control": "no-store"})

    return endpoint


def _read_for_events(
    connection: Connection, retailer_id: str, pattern_id: str, events: Sequence[Happening], now_ms: int
) -> tuple[SavedPattern, ProductSets]:
    """Return a saved pattern, and which of the events' products its product targets are about.

    Raises:
        NotFound: there is no such pattern.
    """
    saved = get_pattern(connection, retailer_id, pattern_id)
    if saved is None:
        raise NotFound("pattern", pattern_id)
    mentioned = [event.product_id for event in events if event.product_id is not None]
    products = list(get_products(connection, retailer_id, mentioned).values())
    return saved, answer_targets(connection, retailer_id, saved.navigation_pattern, products, now_ms)
