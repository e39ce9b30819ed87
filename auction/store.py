"""Tables of what is offered and where it may stand: campaigns, bids, placements, caps, rules, bookings, weather.

Holds the SQL of this package and nothing else; nothing on the slot path imports it. Each row keeps the whole
thing as JSON in `body`, beside the columns one selects by, so that a hundred thousand bids are read back in one
decoding. Nothing is deleted: what is archived stays, so that every change can be followed by `change_seq`.
"""

from collections.abc import Iterator, Sequence
from typing import TypeVar

import msgspec
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from affinity import store as affinity_store
from affinity.store import (
    decode_list,
    decode_one,
    decode_page,
    encode_body,
    field_text,
    replace_row,
    upsert,
    with_status,
)
from auction.booking import Booking
from auction.builder import SnapshotSource
from auction.campaign import Bid, Campaign
from auction.placement import PageCaps, Placement
from auction.retailer_rule import RetailerRule
from auction.virtual_attribute import VirtualAttribute
from auction.weather import WeatherHour

metadata = sa.MetaData()

campaigns = sa.Table(
    "campaigns",
    metadata,
    sa.Column("retailer_id", sa.Text, primary_key=True),
    sa.Column("campaign_id", sa.Text, primary_key=True),
    sa.Column("advertiser_id", sa.Text, nullable=False),
    sa.Column("status", sa.Text, nullable=False),
    sa.Column("body", sa.Text, nullable=False),
    sa.Column("change_seq", sa.BigInteger, nullable=False),
    sa.Index("campaigns_by_advertiser", "retailer_id", "advertiser_id", "campaign_id"),
    sa.Index("campaigns_by_change", "retailer_id", "change_seq"),
)

bids = sa.Table(
    "bids",
    metadata,
    sa.Column("retailer_id", sa.Text, primary_key=True),
    sa.Column("bid_id", sa.Text, primary_key=True),
    sa.Column("campaign_id", sa.Text, nullable=False),
    sa.Column("advertiser_id", sa.Text, nullable=False),
    sa.Column("status", sa.Text, nullable=False),
    sa.Column("body", sa.Text, nullable=False),
    sa.Column("change_seq", sa.BigInteger, nullable=False),
    sa.Index("bids_by_advertiser", "retailer_id", "advertiser_id", "bid_id"),
    sa.Index("bids_by_campaign", "retailer_id", "campaign_id", "bid_id"),
    sa.Index("bids_by_change", "retailer_id", "change_seq"),
)

placements = sa.Table(
    "placements",
    metadata,
    sa.Column("retailer_id", sa.Text, primary_key=True),
    sa.Column("placement_id", sa.Text, primary_key=True),
    sa.Column("body", sa.Text, nullable=False),
    sa.Column("change_seq", sa.BigInteger, nullable=False),
)

page_caps = sa.Table(
    "page_caps",
    metadata,
    sa.Column("retailer_id", sa.Text, primary_key=True),
    sa.Column("page_type", sa.Text, primary_key=True),
    sa.Column("body", sa.Text, nullable=False),
    sa.Column("change_seq", sa.BigInteger, nullable=False),
)

rules = sa.Table(
    "rules",
    metadata,
    sa.Column("retailer_id", sa.Text, primary_key=True),
    sa.Column("rule_id", sa.Text, primary_key=True),
    sa.Column("stage", sa.Text, nullable=False),
    sa.Column("body", sa.Text, nullable=False),
    sa.Column("change_seq", sa.BigInteger, nullable=False),
    sa.Index("rules_by_change", "retailer_id", "change_seq"),
)

weather_hours = sa.Table(
    "weather_hours",
    metadata,
    sa.Column("retailer_id", sa.Text, primary_key=True),
    sa.Column("region", sa.Text, primary_key=True),
    sa.Column("from_ms", sa.BigInteger, primary_key=True),
    sa.Column("body", sa.Text, nullable=False),
    sa.Column("change_seq", sa.BigInteger, nullable=False),
)

bookings = sa.Table(
    "bookings",
    metadata,
    sa.Column("retailer_id", sa.Text, primary_key=True),
    sa.Column("booking_id", sa.Text, primary_key=True),
    sa.Column("placement_id", sa.Text, nullable=False),
    sa.Column("starts_ms", sa.BigInteger, nullable=False),
    sa.Column("ends_ms", sa.BigInteger, nullable=False),
    sa.Column("status", sa.Text, nullable=False),
    sa.Column("body", sa.Text, nullable=False),
    sa.Column("change_seq", sa.BigInteger, nullable=False),
    sa.Index("bookings_by_placement", "retailer_id", "placement_id", "ends_ms"),
)

virtual_attributes = sa.Table(
    "virtual_attributes",
    metadata,
    sa.Column("retailer_id", sa.Text, primary_key=True),
    sa.Column("virtual_attribute_id", sa.Text, primary_key=True),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("type", sa.Text, nullable=False),
    sa.Column("status", sa.Text, nullable=False),
    sa.Column("body", sa.Text, nullable=False),
    sa.Column("change_seq", sa.BigInteger, nullable=False),
)

BIDS_AT_ONCE = 20_000  # read and decoded together

Kept = TypeVar("Kept")
Row = dict[str, str | int]

# --- campaigns ---------------------------------------------------------------------------------------------------


def insert_campaign(connection: Connection, retailer_id: str, campaign: Campaign) -> None:
    """Keep a new campaign."""
    connection.execute(campaigns.insert().values(retailer_id=retailer_id, **_campaign_row(campaign)))


def update_campaign(
    connection: Connection, retailer_id: str, campaign: Campaign, expected_change_seq: int | None = None
) -> bool:
    """Replace the campaign of that id; say whether it was there, and still as of `expected_change_seq` if given."""
    return replace_row(
        connection,
        campaigns,
        (campaigns.c.retailer_id == retailer_id, campaigns.c.campaign_id == campaign.campaign_id),
        _campaign_row(campaign),
        expected_change_seq,
    )


def get_campaign(
    connection: Connection, retailer_id: str, campaign_id: str, advertiser_id: str | None = None
) -> Campaign | None:
    """Return the campaign, or None where there is none or it is not that advertiser's (None: anybody's)."""
    query = sa.select(campaigns.c.body).where(
        campaigns.c.retailer_id == retailer_id, campaigns.c.campaign_id == campaign_id
    )
    if advertiser_id is not None:
        query = query.where(campaigns.c.advertiser_id == advertiser_id)
    return decode_one(connection, query, Campaign)


def list_campaigns(
    connection: Connection,
    retailer_id: str,
    advertiser_id: str | None = None,
    after: str | None = None,
    limit: int = 100,
    *,
    status: str | None = None,
    include_archived: bool = False,
) -> list[Campaign]:
    """Return up to `limit` campaigns in the order of their ids, from just after the id `after`."""
    query = sa.select(campaigns.c.body).where(campaigns.c.retailer_id == retailer_id)
    if advertiser_id is not None:
        query = query.where(campaigns.c.advertiser_id == advertiser_id)
    query = with_status(query, campaigns, status, include_archived)
    return decode_page(connection, query, campaigns.c.campaign_id, after, limit, Campaign)


# --- bids --------------------------------------------------------------------------------------------------------


def insert_bid(connection: Connection, retailer_id: str, bid: Bid) -> None:
    """Keep a new bid."""
    connection.execute(bids.insert().values(retailer_id=retailer_id, **_bid_row(bid)))


def insert_bids(connection: Connection, retailer_id: str, new_bids: Sequence[Bid]) -> None:
    """Keep many new bids at once."""
    if new_bids:
        connection.execute(bids.insert(), [{"retailer_id": retailer_id, **_bid_row(bid)} for bid in new_bids])


def update_bid(connection: Connection, retailer_id: str, bid: Bid, expected_change_seq: int | None = None) -> bool:
    """Replace the bid of that id; say whether it was there, and still as of `expected_change_seq` if given."""
    return replace_row(
        connection,
        bids,
        (bids.c.retailer_id == retailer_id, bids.c.bid_id == bid.bid_id),
        _bid_row(bid),
        expected_change_seq,
    )


def get_bid(connection: Connection, retailer_id: str, bid_id: str, advertiser_id: str | None = None) -> Bid | None:
    """Return the bid, or None where there is none or it is not that advertiser's (None: anybody's)."""
    query = sa.select(bids.c.body).where(bids.c.retailer_id == retailer_id, bids.c.bid_id == bid_id)
    if advertiser_id is not None:
        query = query.where(bids.c.advertiser_id == advertiser_id)
    return decode_one(connection, query, Bid)


def list_bids(
    connection: Connection,
    retailer_id: str,
    advertiser_id: str | None = None,
    after: str | None = None,
    limit: int = 100,
    *,
    campaign_id: str | None = None,
    status: str | None = None,
    include_archived: bool = False,
) -> list[Bid]:
    """Return up to `limit` bids in the order of their ids, from just after the id `after`."""
    query = sa.select(bids.c.body).where(bids.c.retailer_id == retailer_id)
    if advertiser_id is not None:
        query = query.where(bids.c.advertiser_id == advertiser_id)
    if campaign_id is not None:
        query = query.where(bids.c.campaign_id == campaign_id)
    query = with_status(query, bids, status, include_archived)
    return decode_page(connection, query, bids.c.bid_id, after, limit, Bid)


def bid_asking(connection: Connection, retailer_id: str, field: str) -> Bid | None:
    """Return the first bid of a campaign, neither archived, that asks for a product field, also by its pattern.

    Looks through every bid.
    """
    live = sa.select(campaigns.c.campaign_id).where(
        campaigns.c.retailer_id == retailer_id, campaigns.c.status != "archived"
    )
    query = sa.select(bids.c.body).where(
        bids.c.retailer_id == retailer_id,
        bids.c.status != "archived",
        bids.c.body.contains(field_text(field), autoescape=True),
        bids.c.campaign_id.in_(live),
    )
    found = decode_list(connection.execute(query.order_by(bids.c.bid_id)).scalars().all(), Bid)
    return next((bid for bid in found if field in bid.product_fields), None)


# --- placements and the caps of pages ----------------------------------------------------------------------------


def put_placement(connection: Connection, retailer_id: str, placement: Placement) -> bool:
    """Keep the placement, replacing one of the same id; say whether it is new."""
    row: Row = {"body": encode_body(placement), "change_seq": placement.change_seq}
    key = {"retailer_id": retailer_id, "placement_id": placement.placement_id}
    return _put(connection, placements, key, row)


def get_placement(connection: Connection, retailer_id: str, placement_id: str) -> Placement | None:
    """Return the placement, or None."""
    query = sa.select(placements.c.body).where(
        placements.c.retailer_id == retailer_id, placements.c.placement_id == placement_id
    )
    return decode_one(connection, query, Placement)


def list_placements(
    connection: Connection, retailer_id: str, after: str | None = None, limit: int = 100
) -> list[Placement]:
    """Return up to `limit` placements in the order of their ids, from just after the id `after`."""
    query = sa.select(placements.c.body).where(placements.c.retailer_id == retailer_id)
    return decode_page(connection, query, placements.c.placement_id, after, limit, Placement)


def put_page_caps(connection: Connection, retailer_id: str, page_type: str, caps: PageCaps, change_seq: int) -> bool:
    """Keep the caps of a type of page, replacing the earlier ones; say whether they are new."""
    row: Row = {"body": encode_body(caps), "change_seq": change_seq}
    return _put(connection, page_caps, {"retailer_id": retailer_id, "page_type": page_type}, row)


def list_page_caps(connection: Connection, retailer_id: str) -> dict[str, PageCaps]:
    """Return the caps of every type of page that has some."""
    query = sa.select(page_caps.c.page_type, page_caps.c.body).where(page_caps.c.retailer_id == retailer_id)
    rows = connection.execute(query.order_by(page_caps.c.page_type)).all()
    return {page_type: msgspec.json.decode(body, type=PageCaps) for page_type, body in rows}


# --- rules -------------------------------------------------------------------------------------------------------


def insert_rule(connection: Connection, retailer_id: str, rule: RetailerRule) -> None:
    """Keep a new rule."""
    connection.execute(rules.insert().values(retailer_id=retailer_id, **_rule_row(rule)))


def update_rule(
    connection: Connection, retailer_id: str, rule: RetailerRule, expected_change_seq: int | None = None
) -> bool:
    """Replace the rule of that id; say whether it was there, and still as of `expected_change_seq` if given."""
    return replace_row(
        connection,
        rules,
        (rules.c.retailer_id == retailer_id, rules.c.rule_id == rule.rule_id),
        _rule_row(rule),
        expected_change_seq,
    )


def get_rule(connection: Connection, retailer_id: str, rule_id: str) -> RetailerRule | None:
    """Return the rule, or None."""
    query = sa.select(rules.c.body).where(rules.c.retailer_id == retailer_id, rules.c.rule_id == rule_id)
    return decode_one(connection, query, RetailerRule)


def list_rules(
    connection: Connection,
    retailer_id: str,
    after: str | None = None,
    limit: int = 100,
    *,
    stage: str | None = None,
    include_archived: bool = False,
) -> list[RetailerRule]:
    """Return up to `limit` rules in the order of their ids, from just after the id `after`."""
    query = sa.select(rules.c.body).where(rules.c.retailer_id == retailer_id)
    if stage is not None:
        query = query.where(rules.c.stage == stage)
    elif not include_archived:
        query = query.where(rules.c.stage != "archived")
    return decode_page(connection, query, rules.c.rule_id, after, limit, RetailerRule)


# --- bookings ----------------------------------------------------------------------------------------------------


def insert_booking(connection: Connection, retailer_id: str, booking: Booking) -> None:
    """Keep a new booking."""
    connection.execute(bookings.insert().values(retailer_id=retailer_id, **_booking_row(booking)))


def update_booking(connection: Connection, retailer_id: str, booking: Booking) -> bool:
    """Replace the booking of that id; say whether it was there."""
    is_it = bookings.c.retailer_id == retailer_id, bookings.c.booking_id == booking.booking_id
    return replace_row(connection, bookings, is_it, _booking_row(booking))


def get_booking(connection: Connection, retailer_id: str, booking_id: str) -> Booking | None:
    """Return the booking, or None."""
    query = sa.select(bookings.c.body).where(bookings.c.retailer_id == retailer_id, bookings.c.booking_id == booking_id)
    return decode_one(connection, query, Booking)


def list_bookings(
    connection: Connection,
    retailer_id: str,
    after: str | None = None,
    limit: int = 100,
    *,
    placement_id: str | None = None,
    status: str | None = None,
) -> list[Booking]:
    """Return up to `limit` bookings in the order of their ids, from just after the id `after`."""
    query = with_status(sa.select(bookings.c.body), bookings, status, False)
    query = query.where(bookings.c.retailer_id == retailer_id)
    if placement_id is not None:
        query = query.where(bookings.c.placement_id == placement_id)
    return decode_page(connection, query, bookings.c.booking_id, after, limit, Booking)


def bookings_between(
    connection: Connection, retailer_id: str, placement_id: str, starts_ms: int, ends_ms: int
) -> list[Booking]:
    """Return the active bookings of a placement that hold at some moment of a time."""
    return _decode_all(
        connection,
        retailer_id,
        bookings,
        Booking,
        bookings.c.placement_id == placement_id,
        bookings.c.status == "active",
        bookings.c.starts_ms < ends_ms,
        bookings.c.ends_ms > starts_ms,
    )


# --- virtual attributes ------------------------------------------------------------------------------------------


def insert_virtual_attribute(connection: Connection, retailer_id: str, attribute: VirtualAttribute) -> None:
    """Keep a new virtual attribute."""
    connection.execute(virtual_attributes.insert().values(retailer_id=retailer_id, **_attribute_row(attribute)))


def update_virtual_attribute(connection: Connection, retailer_id: str, attribute: VirtualAttribute) -> bool:
    """Replace the virtual attribute of that id; say whether it was there."""
    table = virtual_attributes
    is_it = (
        table.c.retailer_id == retailer_id,
        table.c.virtual_attribute_id == attribute.virtual_attribute_id,
    )
    return replace_row(connection, table, is_it, _attribute_row(attribute))


def get_virtual_attribute(
    connection: Connection, retailer_id: str, virtual_attribute_id: str
) -> VirtualAttribute | None:
    """Return the virtual attribute, or None."""
    query = sa.select(virtual_attributes.c.body).where(
        virtual_attributes.c.retailer_id == retailer_id,
        virtual_attributes.c.virtual_attribute_id == virtual_attribute_id,
    )
    return decode_one(connection, query, VirtualAttribute)


def list_virtual_attributes(
    connection: Connection,
    retailer_id: str,
    after: str | None = None,
    limit: int = 100,
    *,
    status: str | None = None,
) -> list[VirtualAttribute]:
    """Return up to `limit` virtual attributes in the order of their ids, from just after the id `after`."""
    query = with_status(sa.select(virtual_attributes.c.body), virtual_attributes, status, False)
    query = query.where(virtual_attributes.c.retailer_id == retailer_id)
    return decode_page(connection, query, virtual_attributes.c.virtual_attribute_id, after, limit, VirtualAttribute)


def virtual_attribute_types(connection: Connection, retailer_id: str) -> dict[str, str]:
    """Return the type of each active virtual attribute, by name."""
    query = sa.select(virtual_attributes.c.name, virtual_attributes.c.type).where(
        virtual_attributes.c.retailer_id == retailer_id, virtual_attributes.c.status == "active"
    )
    return dict(connection.execute(query).all())


def _active_attributes(connection: Connection, retailer_id: str) -> list[VirtualAttribute]:
    is_active = virtual_attributes.c.status == "active"
    found = _decode_all(connection, retailer_id, virtual_attributes, VirtualAttribute, is_active)
    return sorted(found, key=lambda attribute: attribute.name)


# --- weather -----------------------------------------------------------------------------------------------------


def put_weather(connection: Connection, retailer_id: str, hours: Sequence[WeatherHour], change_seq: int) -> None:
    """Keep the weather of regions by the hour; of two for one hour, the later counts."""
    rows = {
        (hour.region, hour.from_ms): {
            "retailer_id": retailer_id,
            "region": hour.region,
            "from_ms": hour.from_ms,
            "body": encode_body(hour),
            "change_seq": change_seq,
        }
        for hour in hours
    }
    upsert(connection, weather_hours, list(rows.values()), ["retailer_id", "region", "from_ms"], ["body", "change_seq"])


def forget_weather(connection: Connection, retailer_id: str, before_ms: int) -> None:
    """Forget hours that began before a moment."""
    connection.execute(
        weather_hours.delete().where(weather_hours.c.retailer_id == retailer_id, weather_hours.c.from_ms < before_ms)
    )


# --- what a snapshot is built from -------------------------------------------------------------------------------


def read_source(
    connection: Connection, retailer_id: str, *, currency: str, time_zone: str, since: int = -1, with_bids: bool = True
) -> SnapshotSource:
    """Read everything the auction reads, or what changed after version `since` of it.

    As of one version: the connection's own consistent view. Bids may be read apart, in parts (`read_bids`).
    """
    version = affinity_store.current_change_seq(connection, retailer_id)
    return SnapshotSource(
        version=version,
        currency=currency,
        time_zone=time_zone,
        products=affinity_store.read_products_changed(connection, retailer_id, since),
        advertiser_names=dict(affinity_store.list_advertisers(connection, retailer_id)),
        placements=_decode_all(connection, retailer_id, placements, Placement),
        page_caps=list_page_caps(connection, retailer_id),
        campaigns=_decode_all(connection, retailer_id, campaigns, Campaign, _since(campaigns, since)),
        bids=[bid for some in read_bids(connection, retailer_id, since) for bid in some] if with_bids else [],
        rules=_decode_all(connection, retailer_id, rules, RetailerRule, _since(rules, since)),
        weather=_decode_all(connection, retailer_id, weather_hours, WeatherHour),
        virtual_attributes=_active_attributes(connection, retailer_id),
        signals=affinity_store.read_signals(connection, retailer_id, since),
        bookings=_decode_all(connection, retailer_id, bookings, Booking, bookings.c.status == "active"),
    )


def read_bids(
    connection: Connection, retailer_id: str, since: int = -1, count_max: int = BIDS_AT_ONCE
) -> Iterator[list[Bid]]:
    """Yield the bids that changed after a version, at once, or all that are not archived, so many at a time."""
    if since >= 0:  # found by when they changed; in the order of their ids, every bid would have to be looked at
        yield _decode_all(connection, retailer_id, bids, Bid, _since(bids, since))
        return
    query = sa.select(bids.c.body).where(bids.c.retailer_id == retailer_id, _since(bids, since))
    after: str | None = None
    while some := decode_page(connection, query, bids.c.bid_id, after, count_max, Bid):
        yield some
        after = some[-1].bid_id


def _since(table: sa.Table, since: int) -> sa.ColumnElement[bool]:
    """Return the condition for what changed after a version, or, for -1, for what is in force at all."""
    if since >= 0:
        return table.c.change_seq > since
    return table.c.stage == "live" if "stage" in table.c else table.c.status != "archived"


# --- rows ----------------------------------------------------------------------------------------------------------


def _campaign_row(campaign: Campaign) -> Row:
    return {
        "campaign_id": campaign.campaign_id,
        "advertiser_id": campaign.advertiser_id,
        "status": campaign.status,
        "body": encode_body(campaign),
        "change_seq": campaign.change_seq,
    }


def _bid_row(bid: Bid) -> Row:
    return {
        "bid_id": bid.bid_id,
        "campaign_id": bid.campaign_id,
        "advertiser_id": bid.advertiser_id,
        "status": bid.status,
        "body": encode_body(bid),
        "change_seq": bid.change_seq,
    }


def _rule_row(rule: RetailerRule) -> Row:
    return {
        "rule_id": rule.rule_id,
        "stage": rule.stage,
        "body": encode_body(rule),
        "change_seq": rule.change_seq,
    }


def _attribute_row(attribute: VirtualAttribute) -> Row:
    return {
        "virtual_attribute_id": attribute.virtual_attribute_id,
        "name": attribute.name,
        "type": attribute.type,
        "status": attribute.status,
        "body": encode_body(attribute),
        "change_seq": attribute.change_seq,
    }


def _booking_row(booking: Booking) -> Row:
    return {
        "booking_id": booking.booking_id,
        "placement_id": booking.placement_id,
        "starts_ms": int(booking.starts_at.timestamp() * 1000),
        "ends_ms": int(booking.ends_at.timestamp() * 1000),
        "status": booking.status,
        "body": encode_body(booking),
        "change_seq": booking.change_seq,
    }


def _put(connection: Connection, table: sa.Table, key: dict[str, str], row: Row) -> bool:
    is_it = [table.c[name] == value for name, value in key.items()]
    if connection.execute(table.update().where(*is_it).values(**row)).rowcount:
        return False
    connection.execute(table.insert().values(**key, **row))
    return True


def _decode_all(
    connection: Connection,
    retailer_id: str,
    table: sa.Table,
    kind: type[Kept],
    *conditions: sa.ColumnElement[bool],
) -> list[Kept]:
    query = sa.select(table.c.body).where(table.c.retailer_id == retailer_id, *conditions)
    return decode_list(connection.execute(query).scalars().all(), kind)
