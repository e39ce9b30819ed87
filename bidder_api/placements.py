"""Placements and the caps of whole pages, as the merchant sets them."""

from typing import get_args

import msgspec
from msgspec import Struct
from sqlalchemy.engine import Connection

from affinity.store import next_change_seq
from auction.placement import Attention, Floors, PageCaps, Placement, PlacementDraft, VisitorLimit
from auction.request import PageType
from auction.store import (
    get_placement,
    list_page_caps,
    list_placements,
    put_page_caps,
    put_placement,
)
from bidder_api.call import Answer, Call, check_match, etag
from bidder_api.errors import Invalid, NotFound
from bidder_api.resources import page_of, read_page
from ledger.money import impression_price
from ledger.terms import Identifier

PlacementPage = page_of("Placement", Placement)
ATTENTION_RATIO = 0.85  # of a slot to the one before it, where the merchant does not say


class PlacementBody(PlacementDraft, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Body of `PUT /v1/placements/{placement_id}`: the whole placement, replaced; the id may be said again."""

    placement_id: Identifier | None = None


class PageTypeList(Struct, frozen=True):
    """Every type of page that has caps."""

    items: dict[str, PageCaps]


def put(connection: Connection, call: Call) -> Answer:
    """Set a placement, whole."""
    placement_id = call.path["placement_id"]
    before = get_placement(connection, call.retailer_id, placement_id)
    if before is not None:
        check_match(call, before.change_seq)
    body: PlacementBody = call.body
    if body.placement_id not in (None, placement_id):
        message = f"placement_id must be the path's {placement_id!r}, was {body.placement_id!r}"
        raise Invalid("placement_id_differs", message, "/placement_id")
    placement = fill_in(placement_id, body, next_change_seq(connection, call.retailer_id))
    put_placement(connection, call.retailer_id, placement)
    call.log("put", "placement", placement_id, before=before, after=placement)
    return Answer(
        body=placement, status=200 if before is not None else 201, headers={"ETag": etag(placement.change_seq)}
    )


def read(connection: Connection, call: Call) -> Answer:
    """Return one placement."""
    placement = get_placement(connection, call.retailer_id, call.path["placement_id"])
    if placement is None:
        raise NotFound("placement", call.path["placement_id"])
    return Answer(body=placement, headers={"ETag": etag(placement.change_seq)})


def list_all(connection: Connection, call: Call) -> Answer:
    """Return a page of placements."""

    def read_some(after: str | None, limit: int) -> list[Placement]:
        return list_placements(connection, call.retailer_id, after, limit)

    return Answer(body=read_page(call.query, read_some, lambda placement: placement.placement_id))


def put_caps(connection: Connection, call: Call) -> Answer:
    """Set the caps of a type of page, whole."""
    page_type = call.path["type"]
    if page_type not in get_args(PageType):
        raise NotFound("page_type", page_type)
    caps: PageCaps = call.body
    before = list_page_caps(connection, call.retailer_id).get(page_type)
    put_page_caps(connection, call.retailer_id, page_type, caps, next_change_seq(connection, call.retailer_id))
    call.log("put", "page_type", page_type, before=before, after=caps)
    return Answer(body=caps)


def list_caps(connection: Connection, call: Call) -> Answer:
    """Return the caps of every type of page that has some."""
    return Answer(body=PageTypeList(list_page_caps(connection, call.retailer_id)))


def fill_in(placement_id: str, draft: PlacementDraft, change_seq: int) -> Placement:
    """Return a placement with every default filled in.

    Raises:
        Invalid: attention for fewer slots than there are, or rising down the page; a floor per thousand impressions
            that does not divide; a limit per visitor that limits nothing.
    """
    attention = draft.attention_permille
    if attention is None:
        usual = [max(1, round(1000 * ATTENTION_RATIO**row)) for row in range(draft.slot_count)]
        attention = Attention(click=usual, impression=usual)
    elif isinstance(attention, list):
        _check_attention(attention, draft.slot_count, "/attention_permille")
        attention = Attention(click=attention, impression=attention)
    else:
        _check_attention(attention.click, draft.slot_count, "/attention_permille/click")
        _check_attention(attention.impression, draft.slot_count, "/attention_permille/impression")
    floors = draft.floor_micros
    if not isinstance(floors, Floors):
        floors = Floors(click=floors)
    try:
        impression_price(floors.impression)
    except ValueError:
        message = f"the floor per 1000 impressions must be a multiple of 1000, was {floors.impression}"
        raise Invalid("floor_micros_indivisible", message, "/floor_micros/impression") from None
    if draft.sponsored_per_visitor == VisitorLimit():
        message = "sponsored_per_visitor must say session, day or cool_down_after_unclicked, said none"
        raise Invalid("sponsored_per_visitor_empty", message, "/sponsored_per_visitor")
    values = msgspec.structs.asdict(draft) | {
        "placement_id": placement_id,
        "attention_permille": attention,
        "floor_micros": floors,
        "change_seq": change_seq,
    }
    return Placement(**values)


def _check_attention(attention: list[int], slot_count: int, pointer: str) -> None:
    if len(attention) != slot_count:
        message = f"there must be one for each of the {slot_count} slots, were {len(attention)}"
        raise Invalid("attention_count_wrong", message, pointer)
    for row in range(1, slot_count):
        if attention[row] > attention[row - 1]:
            raise Invalid("attention_rising", "attention must not rise down the page", f"{pointer}/{row}")
