"""The retailer's site around the market: what it configures, what it asks for a page, what it reports of visitors.

Speaks the server's own wire types; decides nothing.
"""

from collections.abc import Sequence
from datetime import UTC, datetime

import msgspec

from affinity.catalog import CATEGORY_SEPARATOR, Product
from affinity.navigation import Action, NavigationEvent
from auction.builder import SnapshotSource
from auction.placement import Placement, PlacementDraft
from auction.request import Page, RequestCandidate, RequestPlacement
from auction.retailer_rule import RetailerRule, RuleDraft
from bidder_api.errors import Invalid
from bidder_api.placements import fill_in
from sim.agent import EPOCH, Agent
from sim.chance import Int64s
from sim.errors import ScenarioRefused
from sim.scenario import Scenario, ScenarioPlacement
from sim.visit import PageView
from sim.world import HOME, World, local_midnights_ms

CURRENCY = "EUR"


class Site:
    """Everything the retailer and the bidders have set up; the bids change, the rest stays."""

    def __init__(self, scenario: Scenario, world: World, agents: Sequence[Agent], placements: list[Placement]) -> None:
        self._world, self._agents = world, agents
        self._fixed = SnapshotSource(
            version=0,
            currency=CURRENCY,
            time_zone=scenario.traffic.time_zone,
            read_at_ms=local_midnights_ms(scenario.traffic)[0],
            products=_entitled(world, agents),
            advertiser_names={agent.advertiser_id: agent.brand for agent in agents},
            placements=placements,
            page_caps={str(page_type): caps for page_type, caps in scenario.page_caps.items()},
            campaigns=[agent.campaign() for agent in agents],
            rules=[_rule(row, draft) for row, draft in enumerate(scenario.rules) if draft.stage == "live"],
        )

    def source(self, version: int) -> SnapshotSource:
        """Return what a snapshot is built from, with the bids as they are now."""
        bids = [bid for agent in self._agents for bid in agent.bids(self._world, version)]
        return msgspec.structs.replace(self._fixed, version=version, bids=bids)


def placement_of(draft: ScenarioPlacement) -> Placement:
    """Return the placement as the server would keep it.

    Raises:
        ScenarioRefused: its attention or floors are refused.
    """
    plain = msgspec.structs.asdict(draft)
    placement_id = plain.pop("placement_id")
    try:
        return fill_in(placement_id, PlacementDraft(**plain), 1)
    except Invalid as refusal:
        raise ScenarioRefused(f"placements: {placement_id}: {refusal}") from refusal


def requested(page_type: str, placements: Sequence[Placement]) -> list[RequestPlacement]:
    """Return the placements a page of that type asks to have filled."""
    return [
        RequestPlacement(placement_id=placement.placement_id)
        for placement in placements
        if page_type in placement.page_types
    ]


def page(world: World, view: PageView) -> Page:
    """Return the page as the request describes it."""
    category_id = _category_id(world, view)
    query = _query(category_id) if view.type == "search" else None
    return Page(type=view.type, category_id=category_id, product_id=_product_id(world, view), query=query)


def with_candidates(
    world: World, placements: list[RequestPlacement], view: PageView, rows: Int64s, organic: Sequence[int]
) -> list[RequestPlacement]:
    """Bring a search page's hits along, as the site's own search engine would; elsewhere the page says enough."""
    if view.type != "search":
        return placements
    candidates: list[RequestCandidate | str] = [
        RequestCandidate(product_id=world.products[int(rows[place])].product_id, organic_rank=rank)
        for rank, place in enumerate(organic, 1)
    ]
    return [msgspec.structs.replace(placement, candidates=candidates) for placement in placements]


def navigation(world: World, visitor_id: str, view: PageView, now_ms: int) -> NavigationEvent:
    """Return what the site reports of a page being opened."""
    category_id = _category_id(world, view)
    action = {"product": Action.VIEW_ITEM, "search": Action.SEARCH}.get(view.type, Action.VIEW_ITEM_LIST)
    return NavigationEvent(
        visitor_id=visitor_id,
        action=action,
        occurred_at=_moment(now_ms),
        product_id=_product_id(world, view),
        category_id=None if view.type == "product" else category_id,
        query=_query(category_id) if action is Action.SEARCH else None,
    )


def order(world: World, visitor_id: str, row: int, now_ms: int) -> NavigationEvent:
    """Return what the site reports of a product being bought."""
    return NavigationEvent(
        visitor_id=visitor_id,
        action=Action.PURCHASE,
        occurred_at=_moment(now_ms),
        product_id=world.products[row].product_id,
        quantity=1,
        price_micros=int(world.price_micros[row]),
    )


def _category_id(world: World, view: PageView) -> str | None:
    return None if view.category_row == HOME else world.category_id[view.category_row]


def _product_id(world: World, view: PageView) -> str | None:
    return None if view.product_row is None else world.products[view.product_row].product_id


def _query(category_id: str | None) -> str:
    return (category_id or "").rpartition(CATEGORY_SEPARATOR)[2].lower()


def _moment(now_ms: int) -> datetime:
    return datetime.fromtimestamp(now_ms / 1000, UTC)


def _entitled(world: World, agents: Sequence[Agent]) -> list[Product]:
    """Return the catalogue, every product naming the advertisers who promote it."""
    promoters: dict[int, list[str]] = {}
    for agent in agents:
        for row in agent.product_rows:
            promoters.setdefault(row, []).append(agent.advertiser_id)
    return [
        msgspec.structs.replace(product, advertiser_ids=promoters.get(row, []))
        for row, product in enumerate(world.products)
    ]


def _rule(row: int, draft: RuleDraft) -> RetailerRule:
    return RetailerRule(
        rule_id=f"rule-{row:03d}",
        name=draft.name,
        effect=draft.effect,
        scope=draft.scope,
        target=draft.target,
        schedule=draft.schedule,
        priority=draft.priority,
        stage=draft.stage,
        created_at=EPOCH,
        updated_at=EPOCH,
        change_seq=1,
    )
