"""Bids: standing offers on products, against an audience and a navigation pattern."""

from collections.abc import Iterable, Mapping
from typing import Literal

import msgspec
from sqlalchemy.engine import Connection

from affinity.store import entitled_products, get_product, next_change_seq
from auction.campaign import Bid, BidDraft, Campaign
from auction.store import get_bid, get_placement, insert_bid, list_bids, update_bid
from bidder_api.audiences import check_audience
from bidder_api.call import Answer, Call, check_match, etag
from bidder_api.campaigns import find_campaign
from bidder_api.errors import Conflict, Invalid, NotFound
from bidder_api.patterns import check_pattern
from bidder_api.problems import escape
from bidder_api.resources import (
    PageQuery,
    given,
    make_id,
    moment,
    page_of,
    patch_type,
    read_of_tenants,
    read_page,
    sees,
)
from bidder_api.rules import check_advertisers_target, check_temperature
from ledger.money import impression_price
from ledger.terms import ChargeOn, Identifier

BidPatch = patch_type(BidDraft, "BidPatch", leave_out=["campaign_id"])
BidPage = page_of("Bid", Bid)


class BidQuery(PageQuery, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Query of the list of bids; archived ones are listed only when asked for by status."""

    campaign_id: Identifier | None = None
    status: Literal["active", "paused", "archived"] | None = None


class Lookup:
    """What placing and changing bids asks the database, each thing once in a transaction."""

    def __init__(self, connection: Connection, call: Call) -> None:
        self._connection, self._call = connection, call
        self._campaigns: dict[str, Campaign] = {}
        self._asked: dict[str, set[str]] = {}
        self._entitled: dict[str, set[str]] = {}
        self._change_seq: int | None = None

    @property
    def change_seq(self) -> int:
        """Return the number everything changed in this transaction carries."""
        if self._change_seq is None:
            self._change_seq = next_change_seq(self._connection, self._call.retailer_id)
        return self._change_seq

    def campaign(self, campaign_id: str) -> Campaign:
        """Return a campaign the caller may place bids in.

        Raises:
            Invalid: there is none, or it is somebody else's.
            Conflict: it is archived.
        """
        campaign = self._campaigns.get(campaign_id)
        if campaign is None:
            try:
                campaign = find_campaign(self._connection, self._call, campaign_id)
            except NotFound as unknown:
                raise Invalid(unknown.code, str(unknown), "/campaign_id") from None
            self._campaigns[campaign_id] = campaign
        if campaign.status == "archived":
            raise Conflict("campaign_archived", "an archived campaign takes no more bids", "/campaign_id")
        return campaign

    def entitled(self, advertiser_id: str, product_ids: Iterable[str]) -> set[str]:
        """Return products an advertiser may bid on: at least those of the ones named."""
        asked = self._asked.setdefault(advertiser_id, set())
        entitled = self._entitled.setdefault(advertiser_id, set())
        new = set(product_ids) - asked
        if new:
            entitled |= entitled_products(self._connection, self._call.retailer_id, advertiser_id, sorted(new))
            asked |= new
        return entitled


def create_bid(connection: Connection, call: Call) -> Answer:
    """Place a bid in a campaign of the caller's."""
    bid = place(connection, call, call.body, Lookup(connection, call))
    insert_bid(connection, call.retailer_id, bid)
    return Answer(body=bid, headers={"ETag": etag(bid.change_seq), "Location": f"/v1/bids/{bid.bid_id}"})


def place(connection: Connection, call: Call, draft: BidDraft, lookup: Lookup) -> Bid:
    """Return a new bid, checked and logged; it is not written yet.

    Raises:
        Refused: see `Lookup.campaign` and `check_bid`.
    """
    campaign, now = lookup.campaign(draft.campaign_id), moment(call.now_ms)
    bid = Bid(
        **msgspec.structs.asdict(draft),
        bid_id=make_id("bid", call),
        advertiser_id=campaign.advertiser_id,
        created_at=now,
        updated_at=now,
        change_seq=lookup.change_seq,
    )
    check_bid(connection, call, bid, lookup)
    call.log("create", "bid", bid.bid_id, after=bid)
    return bid


def read_bid(connection: Connection, call: Call) -> Answer:
    """Return one bid."""
    bid = find_bid(connection, call)
    return Answer(body=bid, headers={"ETag": etag(bid.change_seq)})


def list_own_bids(connection: Connection, call: Call) -> Answer:
    """Return a page of the caller's bids."""
    query: BidQuery = call.query

    def read(after: str | None, limit: int) -> list[Bid]:
        return read_of_tenants(
            call.caller,
            lambda tenant: list_bids(
                connection,
                call.retailer_id,
                tenant,
                after,
                limit,
                campaign_id=query.campaign_id,
                status=query.status,
            ),
            lambda bid: bid.bid_id,
            limit,
        )

    return Answer(body=read_page(query, read, lambda bid: bid.bid_id))


def change_bid(connection: Connection, call: Call, lookup: Lookup | None = None) -> Answer:
    """Change some of a bid."""
    bid = find_bid(connection, call)
    check_match(call, bid.change_seq)
    if bid.status == "archived":
        raise Conflict("bid_archived", "an archived bid cannot be changed")
    return _store(connection, call, bid, "update", given(call.body), lookup or Lookup(connection, call))


def archive_bid(connection: Connection, call: Call, lookup: Lookup | None = None) -> Answer:
    """Archive a bid. Archiving it again changes nothing."""
    bid = find_bid(connection, call)
    check_match(call, bid.change_seq)
    if bid.status != "archived":
        archived = {"status": "archived"}
        stored = _store(connection, call, bid, "archive", archived, lookup or Lookup(connection, call))
        return Answer(headers=stored.headers)
    return Answer(headers={"ETag": etag(bid.change_seq)})


def find_bid(connection: Connection, call: Call) -> Bid:
    """Return the bid of the path, if the caller may see it.

    Raises:
        NotFound: there is none, or it is somebody else's.
    """
    bid = get_bid(connection, call.retailer_id, call.path["bid_id"])
    if bid is None or not sees(call.caller, bid.advertiser_id):
        raise NotFound("bid", call.path["bid_id"])
    return bid


def check_bid(connection: Connection, call: Call, bid: Bid, lookup: Lookup) -> None:
    """Check what no single field's type can say, in the order of the fields.

    Raises:
        Invalid: a product twice, unknown or of another advertiser; a target that is none, or asks for a field bids may
            not ask for; a price per thousand that does not divide; an
            audience or pattern that names what is not there; a range of temperatures without ends; a multiplier of an
            unknown placement.
        PatternRefused: a pattern there is no room for; see also `check_pattern`.
    """
    retailer_id = call.retailer_id
    seen: set[str] = set()
    for row, product_id in enumerate(bid.product_ids):
        if product_id in seen:
            raise Invalid("product_repeated", f"{product_id!r} is named twice", f"/product_ids/{row}")
        seen.add(product_id)
    entitled = lookup.entitled(bid.advertiser_id, bid.product_ids)
    for row, product_id in enumerate(bid.product_ids):
        if product_id in entitled:
            continue
        if get_product(connection, retailer_id, product_id) is None:
            raise Invalid("product_unknown", f"there is no product {product_id!r}", f"/product_ids/{row}")
        raise Invalid(
            "product_not_entitled",
            f"advertiser {bid.advertiser_id} may not bid on product {product_id!r}",
            f"/product_ids/{row}",
        )
    if bid.product_target is not None:
        check_advertisers_target(connection, retailer_id, bid.product_target, "/product_target")
    if bid.charge_on is ChargeOn.IMPRESSION:
        try:
            impression_price(bid.bid_micros)
        except ValueError:
            message = f"bid_micros per 1000 impressions must be a multiple of 1000, was {bid.bid_micros}"
            raise Invalid("bid_micros_indivisible", message, "/bid_micros") from None
    if bid.audience is not None:
        check_audience(connection, retailer_id, bid.audience, "/audience", call.special, may_leave_brand_out=True)
    if bid.navigation_pattern is not None:
        check_pattern(connection, retailer_id, bid.navigation_pattern, "/navigation_pattern")
        call.check_live_pattern(bid.navigation_pattern, "/navigation_pattern")
    if bid.context is not None and bid.context.temperature_c is not None:
        check_temperature(bid.context.temperature_c, "/context/temperature_c")
    for placement_id in bid.placement_multipliers:
        if get_placement(connection, retailer_id, placement_id) is None:
            pointer = f"/placement_multipliers/{escape(placement_id)}"
            raise Invalid("placement_unknown", f"there is no placement {placement_id!r}", pointer)


def _store(
    connection: Connection, call: Call, before: Bid, action: str, changed: Mapping[str, object], lookup: Lookup
) -> Answer:
    after = msgspec.structs.replace(
        before,
        **changed,
        updated_at=moment(call.now_ms),
        change_seq=lookup.change_seq,
    )
    if action == "update":
        check_bid(connection, call, after, lookup)
    update_bid(connection, call.retailer_id, after)
    call.log(action, "bid", after.bid_id, before=before, after=after)
    return Answer(body=after, headers={"ETag": etag(after.change_seq)})
