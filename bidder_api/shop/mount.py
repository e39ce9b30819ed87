"""Where the shop meets a running server: pages are filled by its SlotServer, reasons come from its receipts."""

import gzip
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
from starlette.routing import Route

from affinity.audience import Audience
from affinity.computed import promophile_score, rfm_class
from affinity.pattern import NavigationPattern, PatternStep
from affinity.product_target import target_words
from affinity.profile import ProfileLine
from affinity.store import read_products_changed
from auction.request import Fill, SlotRequest, SlotResponse
from auction.retailer_rule import RetailerRule
from auction.serving import SlotServer
from auction.snapshot import Snapshot
from bidder_api.demonstration.keys import read_keys, site_keys
from bidder_api.serving import Serving
from bidder_api.shop.catalogue import ShopCatalogue
from bidder_api.shop.endpoint import Shop, routes
from bidder_api.shop.page import Explanation, Reasons
from bidder_api.shop.visitors import Known, TellingVisitor, Visitors

DATA = Path(__file__).parents[1] / "demo_data"


def pages(serving: Serving) -> Sequence[Route]:
    """Return the demo shop's routes, over a server whose data folder `endcap demo` has set up."""
    products = serving.database.read(lambda connection: read_products_changed(connection, serving.retailer_id, -1))
    telling = msgspec.json.decode((DATA / "telling_visitors.json").read_bytes(), type=list[TellingVisitor])
    server = serving.slot_server

    def known(visitor_id: str) -> Known:
        record = serving.visitors.record(serving.visitors.pseudonym(visitor_id))
        if record is None:
            return Known(None, None)
        scale = serving.visitors.scale
        return Known(rfm_class(record.purchases, scale), promophile_score(record.purchases, scale))

    shop = Shop(
        fill=server.fill,
        explain=lambda request, response: explain(server, request, response),
        catalogue=ShopCatalogue(products),
        visitors=Visitors(telling, read_profiles({visitor.visitor_id for visitor in telling}), known),
        site_keys=site_keys(read_keys(serving.settings.server.data_dir)),
        currency=serving.deployment.currency,
    )
    return routes(shop)


def read_profiles(visitor_ids: set[str]) -> dict[str, ProfileLine]:
    """Return the shipped profiles of some households."""
    decode = msgspec.json.Decoder(ProfileLine).decode
    with gzip.open(DATA / "profiles.jsonl.gz") as lines:
        return {profile.visitor_id: profile for profile in map(decode, lines) if profile.visitor_id in visitor_ids}


def explain(server: SlotServer, request: SlotRequest, response: SlotResponse) -> Explanation | None:
    """Return what the receipt of an answer says of its fills; None where none is kept.

    Reads the winners' rows alone: the receipt in words, for everybody who took part, takes a hundred times as long.
    """
    receipt = None if server.receipts is None else server.receipts.find(response.auction_id)
    if receipt is None:
        return None
    snapshot = server.market.snapshot
    affinity = own_affinity(server, request)
    rule_of = {rule.rule_id: row for row, rule in enumerate(snapshot.rules)}
    reasons: dict[str, Reasons] = {}
    for note, placement in zip(receipt.note.places, response.placements, strict=True):
        rule_rows = [rule_of[rule_id] for rule_id in note.rule_ids if rule_id in rule_of]
        for fill in placement.fills:
            row = int(receipt.outcome.winner_row[note.first_slot + fill.slot_position - 1])
            touched = [
                snapshot.rules[rule_row] for rule_row in rule_rows if touches(snapshot, rule_row, fill.product_id)
            ]
            reasons[fill.product_id] = Reasons(
                quality_ppm=int(receipt.quality_ppm[row]),
                organic_source=note.organic_source,
                affinity=affinity.get(fill.product_id),
                is_pinned=any(_pins(rule, fill) for rule in touched),
                rules=[rule.name for rule in touched],
                bid_micros=int(receipt.candidates.bid_micros[row]) if fill.is_sponsored else None,
                audience=audience_of(snapshot, int(receipt.offer_row[row])) if fill.is_sponsored else "",
            )
    return Explanation(candidate_count=receipt.note.candidate_count + receipt.note.lost_count, reasons=reasons)


def own_affinity(server: SlotServer, request: SlotRequest) -> Mapping[str, float]:
    """Return how much the visitor leans towards the products that have a quality of their own for them."""
    served = server.served
    if served is None:
        return {}
    market = served.market
    view = server.visitors.view(
        request.visitor_id, request.consent, served.targets, market.model, server.clock_ms(), request.navigation
    )
    product_id = market.snapshot.product_id
    return {
        product_id[row]: float(affinity)
        for row, affinity in zip(view.product_row.tolist(), view.affinity.tolist(), strict=True)
    }


def audience_of(snapshot: Snapshot, offer_row: int) -> str:
    """Return for whom an offer is, in words; empty for everybody."""
    if not 0 <= offer_row < snapshot.offer_count:
        return ""
    offer = snapshot.columns.offer[offer_row]
    words = []
    if offer["audience_row"] >= 0:
        words.append(audience_words(snapshot.targets_spec.audiences[int(offer["audience_row"])]))
    if offer["pattern_row"] >= 0:
        words.append(pattern_words(snapshot.targets_spec.patterns[int(offer["pattern_row"])]))
    return "; ".join(words)


def audience_words(audience: Audience) -> str:
    """Return an audience as one would say it, near enough.

    >>> audience_words(Audience(all=[Audience(rfm=["champion"]), Audience(not_=Audience(segment="baby"))]))
    'champion and not baby'
    """
    if audience.all is not None:
        return " and ".join(map(audience_words, audience.all))
    if audience.any is not None:
        return " or ".join(map(audience_words, audience.any))
    if audience.not_ is not None:
        return "not " + audience_words(audience.not_)
    if audience.segment is not None:
        return audience.segment
    if audience.rfm is not None:
        return " or ".join(audience.rfm)
    if audience.score is not None:
        return f"{audience.score} ≥ {audience.at_least:g}" if audience.at_least is not None else audience.score
    for what, days in (
        (f"bought {audience.brand or 'the brand'}", audience.bought_brand_within_days),
        (f"bought {audience.category_id}", audience.bought_category_within_days),
        ("bought the product", audience.bought_product_within_days),
    ):
        if days is not None:
            return f"{what} within {days} days"
    return msgspec.json.encode(audience).decode()


def pattern_words(pattern: NavigationPattern) -> str:
    """Return a navigation pattern as one would say it, near enough."""
    steps = [f"{_step_words(step)} ≥ {step.at_least}×" for step in pattern.steps]
    without = [f"no {_step_words(step) if step.product_target else step.action}" for step in pattern.without]
    within = "this session" if pattern.within == "session" else f"within {pattern.within} s"
    return ", ".join([*steps, *without, within])


def _step_words(step: PatternStep) -> str:
    where = step.product_id or step.category_id or step.brand
    target = "" if step.product_target is None else f"where {target_words(step.product_target)}"
    return " ".join(filter(None, (step.action, where, target)))


def touches(snapshot: Snapshot, rule_row: int, product_id: str) -> bool:
    """Say whether a rule is about a product."""
    pin = snapshot.rules[rule_row].effect.pin
    if pin is not None:
        return pin.product_id == product_id
    row = snapshot.product_row.get(product_id)
    return row is not None and bool(snapshot.columns.rule_target_bits[rule_row, row >> 3] & (128 >> (row & 7)))


def _pins(rule: RetailerRule, fill: Fill) -> bool:
    pin = rule.effect.pin
    return pin is not None and (pin.product_id, pin.slot_position) == (fill.product_id, fill.slot_position)
