"""A page before and after a change of the rules, with the reason for every tile; nothing is published by looking.

The page is decided twice by the auction's own engine, for the same visitor, with the same money and the same chance:
what differs is the rules' doing.
"""

from collections.abc import Sequence
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct
from sqlalchemy.engine import Connection
from starlette.requests import Request
from starlette.responses import Response

from affinity.catalog import Product
from affinity.navigation import Consent, ConsentSignal
from affinity.shared_visitors import SharedVisitors
from affinity.store import read_products_changed
from auction.conflicts import RuleConflict, Surroundings, find_conflicts
from auction.eligibility import Place
from auction.engine import NO_LIMITS, Decision, Outcome, PlaceOutcome, hold_auction, no_deadline
from auction.market import Market
from auction.request import Page, RequestPlacement, SlotRequest
from auction.retailer_rule import RetailerRule, RuleDraft
from auction.rules import EVALUATION_ORDER, PinnedSlot, compile_rules
from auction.serving import SlotServer
from auction.snapshot import Snapshot
from auction.store import list_rules
from auction.virtual_attribute import virtual_columns
from bidder_api.call import Desk, Endpoint
from bidder_api.errors import Invalid
from bidder_api.rules import check_rule, from_draft
from ledger.terms import Identifier

RULE_COUNT_MAX = 50
_encode = msgspec.json.Encoder().encode

SOURCE_WORDS = {  # of what one is the first, the second, …
    "recently_viewed": "what the visitor viewed last",
    "cart": "what is in the visitor's cart",
    "complements": "what is bought together with the cart, or with the page's product",
    "best_sellers": "the best-sellers of the page's context",
}

Reason = Literal["booked", "pinned", "won", "organic"]


class PreviewRequest(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Body of `POST /v1/rules/preview`: a page, a visitor, and what would change.

    Attributes:
        rules: rules not saved yet, taken as live.
        publish_rule_ids: saved drafts, taken as live.
        withdraw_rule_ids: live rules, taken as gone.
    """

    page: Page
    placements: Annotated[list[RequestPlacement], Meta(min_length=1, max_length=5)]
    visitor_id: Identifier | None = None
    consent: ConsentSignal = Consent(personalised=True)
    context: Annotated[dict[str, str], Meta(max_length=50)] = {}
    mode: Literal["sponsored", "merchandised"] = "merchandised"
    rules: Annotated[list[RuleDraft], Meta(max_length=RULE_COUNT_MAX)] = []
    publish_rule_ids: Annotated[list[Identifier], Meta(max_length=RULE_COUNT_MAX)] = []
    withdraw_rule_ids: Annotated[list[Identifier], Meta(max_length=RULE_COUNT_MAX)] = []


class Tile(Struct, frozen=True, kw_only=True):
    """A product on the page, and why it is there.

    Attributes:
        reason: `booked` by an advertiser beforehand, `pinned` by a rule, `won` its place with a bid, or `organic`:
            worth most to the shop there, of what the placement's `organic_source` has.
        words: the reason in a sentence.
        rule_ids: rules that touch it here; `rules[2]` is the third rule sent along.
    """

    slot_position: int
    product_id: str
    is_sponsored: bool
    advertiser_id: str | None
    clearing_price_micros: int | None
    reason: Reason
    words: str
    rule_ids: list[str]


class Missing(Struct, frozen=True, kw_only=True):
    """A product that stood on the page before and does not after, and the rules that keep it out."""

    product_id: str
    words: str
    rule_ids: list[str]


class Ignored(Struct, frozen=True, kw_only=True):
    """A rule in force that does nothing on this page."""

    rule_id: str
    words: str


class PreviewPlacement(Struct, frozen=True, kw_only=True):
    """One placement.

    Attributes:
        reserved_slot_count: slots left empty for want of own-brand products.
        gone: on the page after, what stood there before.
        ignored: rules in force here that do nothing, and why.
    """

    placement_id: str
    no_fill_reason: str | None
    reserved_slot_count: int
    tiles: list[Tile]
    gone: list[Missing]
    ignored: list[Ignored]


class PreviewAnswer(Struct, frozen=True, kw_only=True):
    """The page under the live rules, and under the changed ones.

    Attributes:
        evaluation_order: in which order rules act, whatever order they were written in.
        conflicts: what does not go together among the changed rules, placements and bookings, on whatever page.
    """

    snapshot_version: int
    evaluation_order: list[str]
    conflicts: list[RuleConflict]
    before: list[PreviewPlacement]
    after: list[PreviewPlacement]


def preview_endpoint(desk: Desk, server: SlotServer, shared: SharedVisitors | None = None) -> Endpoint:
    """Return the endpoint of `POST /v1/rules/preview`.

    Args:
        desk: where the catalogue and the rules are read.
        server: whose snapshot, visitors and spend the page is decided with.
        shared: where other processes share the visitors; None where they do not.
    """

    async def endpoint(request: Request) -> Response:
        body: PreviewRequest = request.scope["body"]
        before = server.market
        after, conflicts = await desk.in_thread(request.scope["operation"], lambda: _changed_market(desk, body, before))
        if shared is not None and body.visitor_id is not None:
            await shared.read(server.visitors.pseudonym(body.visitor_id))
        answer = _decide_both(server, body, before, after, conflicts)
        return Response(_encode(answer), media_type="application/json", headers={"Cache-Control": "no-store"})

    return endpoint


def _changed_market(desk: Desk, body: PreviewRequest, market: Market) -> tuple[Market, list[RuleConflict]]:
    """Return the live market under the changed rules, and what of them does not go together.

    Made in a thread: it reads the whole catalogue.
    """

    def read(connection: Connection) -> tuple[list[RetailerRule], list[Product]]:
        rules = _changed_rules(connection, desk.retailer_id, body, market.snapshot.rules, desk.clock_ms())
        return rules, read_products_changed(connection, desk.retailer_id, -1)

    rules, products = desk.database.read(read)
    names = market.snapshot.names
    around = Surroundings(
        placements=names.placements,
        bookings=names.bookings,
        products={product.product_id: product for product in products},
        attributes=names.virtual_attributes,
        signals=names.signals,
        now_ms=desk.clock_ms(),
    )
    changed = Market(with_rules(market.snapshot, rules, products), market.model, market.corrections)
    return changed, find_conflicts(rules, around)


def _changed_rules(
    connection: Connection, retailer_id: str, body: PreviewRequest, live: Sequence[RetailerRule], now_ms: int
) -> list[RetailerRule]:
    changed = {rule.rule_id: rule for rule in live}
    for row, rule_id in enumerate(body.withdraw_rule_ids):
        if changed.pop(rule_id, None) is None:
            raise Invalid("rule_unknown", f"there is no live rule {rule_id!r}", f"/withdraw_rule_ids/{row}")
    if body.publish_rule_ids:
        drafts = {rule.rule_id: rule for rule in list_rules(connection, retailer_id, None, 10_000, stage="draft")}
        for row, rule_id in enumerate(body.publish_rule_ids):
            if rule_id not in drafts:
                raise Invalid("rule_unknown", f"there is no draft {rule_id!r}", f"/publish_rule_ids/{row}")
            changed[rule_id] = msgspec.structs.replace(drafts[rule_id], stage="live")
    for row, draft in enumerate(body.rules):
        rule = from_draft(msgspec.structs.replace(draft, stage="live"), f"rules[{row}]", now_ms, 0)
        check_rule(connection, retailer_id, rule, f"/rules/{row}")
        changed[rule.rule_id] = rule
    return list(changed.values())


def with_rules(snapshot: Snapshot, rules: Sequence[RetailerRule], products: Sequence[Product]) -> Snapshot:
    """Return the snapshot with other rules; products changed since it was built count as they were then."""
    by_id = {product.product_id: product for product in products}
    known = [by_id.get(product_id) or Product(product_id=product_id) for product_id in snapshot.product_id]
    read_at_ms = snapshot.names.read_at_ms
    signals = snapshot.names.signals
    virtual = virtual_columns(snapshot.names.virtual_attributes, known, read_at_ms, signals)
    made = compile_rules(rules, known, read_at_ms, virtual, signals)
    return Snapshot(
        msgspec.structs.replace(snapshot.names, rules=made.rules),
        msgspec.structs.replace(
            snapshot.columns, rule_target_bits=made.target_bits, rule_value_micros=made.value_micros
        ),
    )


def _decide_both(
    server: SlotServer, body: PreviewRequest, before: Market, after: Market, conflicts: list[RuleConflict]
) -> PreviewAnswer:
    served, now_ms = server.served, server.clock_ms()
    assert served is not None
    slot_request = SlotRequest(
        page=body.page,
        placements=body.placements,
        visitor_id=body.visitor_id,
        consent=body.consent,
        context=dict(body.context),
        mode=body.mode,
    )
    visitor = server.visitors.view(
        body.visitor_id, body.consent, served.targets, before.model, now_ms, recalls=before.recalls
    )
    left = NO_LIMITS
    if body.visitor_id is not None and visitor.has_consent and before.visitor_limits:
        left = server.sponsored_left(slot_request, visitor.pseudonym, now_ms)
    outcomes = [
        hold_auction(
            slot_request,
            "preview",
            market,
            visitor,
            server.spend,
            no_deadline(now_ms),
            0,
            server.settings,
            sponsored_left=left,
        )
        for market in (before, after)
    ]
    pages = [_describe(outcome, market) for outcome, market in zip(outcomes, (before, after), strict=True)]
    for laid, earlier, later in zip(outcomes[1].laid, *pages, strict=True):
        still_there = {tile.product_id for tile in later.tiles}
        later.gone.extend(
            _missing(tile.product_id, after.snapshot, laid.plan.rule_rows)
            for tile in earlier.tiles
            if tile.product_id not in still_there
        )
    return PreviewAnswer(
        snapshot_version=before.snapshot.version,
        evaluation_order=EVALUATION_ORDER,
        conflicts=conflicts,
        before=pages[0],
        after=pages[1],
    )


def _describe(outcome: Outcome, market: Market) -> list[PreviewPlacement]:
    return [
        PreviewPlacement(
            placement_id=place.placement_id,
            no_fill_reason=place.no_fill_reason,
            tiles=[_tile(decision, market, laid) for decision in place.decisions],
            reserved_slot_count=place.reserved_slot_count,
            gone=[],
            ignored=_ignored(laid, place, market),
        )
        for laid, place in zip(outcome.laid, outcome.places, strict=True)
    ]


def _tile(decision: Decision, market: Market, laid: Place) -> Tile:
    snapshot = market.snapshot
    touching = [row for row in laid.plan.rule_rows if _touches(snapshot, row, decision.product_row)]
    names = [snapshot.rules[row].name for row in touching]
    touched = f"; touched by {', '.join(names)}" if names else ""
    facts = market.offer_facts(decision.offer_row) if decision.offer_row >= 0 else None
    booked = decision.booked
    reason: Reason = "pinned" if decision.is_pinned else "organic" if facts is None else "won"
    if booked is not None:
        reason = "booked"
    words = {
        "booked": f"an advertiser booked the place{touched}",
        "pinned": f"a rule put it there: {', '.join(names)}",
        "won": f"its bid won the place, for {decision.price_micros} micros per {decision.charge_on}{touched}",
        "organic": f"{_why_organic(decision, laid)}{touched}",
    }[reason]
    return Tile(
        slot_position=decision.slot_position,
        product_id=snapshot.product_id[decision.product_row],
        is_sponsored=facts is not None or booked is not None,
        advertiser_id=_payer(decision, market),
        clearing_price_micros=None if facts is None else decision.price_micros,
        reason=reason,
        words=words,
        rule_ids=[snapshot.rules[row].rule_id for row in touching],
    )


def _why_organic(decision: Decision, laid: Place) -> str:
    """Return which place of its source a product had; that it is worth most, where there is no such place."""
    source, rows = SOURCE_WORDS.get(laid.organic_source), laid.source_row.tolist()
    if source is None or decision.product_row not in rows:
        return "nothing else there is worth more to the shop"
    return f"number {rows.index(decision.product_row) + 1} of {source}"


def _payer(decision: Decision, market: Market) -> str | None:
    if decision.booked is not None:
        return market.snapshot.advertiser_id[decision.booked.advertiser_row]
    return market.offer_facts(decision.offer_row).advertiser_id if decision.offer_row >= 0 else None


def _ignored(laid: Place, place: PlaceOutcome, market: Market) -> list[Ignored]:
    """Return the rules that another one, the catalogue or this page leaves without effect, with the reason."""
    snapshot = market.snapshot
    reasons = dict(laid.plan.ignored)
    standing = {decision.slot_position for decision in place.decisions if decision.is_pinned}
    booked = {decision.slot_position for decision in place.decisions if decision.booked is not None}
    for pin in laid.plan.pins:
        if pin.slot_position not in standing:
            reasons[pin.rule_row] = (
                f"slot {pin.slot_position} is booked"
                if pin.slot_position in booked
                else _why_not_pinned(pin, laid, market)
            )
    return [Ignored(rule_id=snapshot.rules[row].rule_id, words=reasons[row]) for row in sorted(reasons)]


def _why_not_pinned(pin: PinnedSlot, laid: Place, market: Market) -> str:
    product_id = market.snapshot.product_id[pin.product_row]
    if pin.slot_position > laid.slot_count:
        return f"there is no slot {pin.slot_position}; the placement has {laid.slot_count} here"
    if not market.arrays.product[pin.product_row]["is_available"]:
        return f"product {product_id!r} is out of stock"
    if laid.plan.excludes(pin.product_row):
        return f"a rule keeps product {product_id!r} out"
    return f"the page or the visitor leaves product {product_id!r} out, or it stands elsewhere on the page"


def _missing(product_id: str, snapshot: Snapshot, rule_rows: Sequence[int]) -> Missing:
    product_row = snapshot.product_row[product_id]
    excluding = [
        snapshot.rules[row]
        for row in rule_rows
        if (snapshot.rules[row].effect.exclude and _touches(snapshot, row, product_row))
        or (snapshot.rules[row].effect.require and not _touches(snapshot, row, product_row))
    ]
    words = f"kept out by {', '.join(rule.name for rule in excluding)}" if excluding else "others came before it"
    return Missing(product_id=product_id, words=words, rule_ids=[rule.rule_id for rule in excluding])


def _touches(snapshot: Snapshot, rule_row: int, product_row: int) -> bool:
    """Say whether a rule is about a product."""
    pin = snapshot.rules[rule_row].effect.pin
    if pin is not None:
        return pin.product_id == snapshot.product_id[product_row]
    packed = int(snapshot.columns.rule_target_bits[rule_row, product_row >> 3])
    return bool(packed >> (7 - (product_row & 7)) & 1)
