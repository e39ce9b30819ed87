"""Bookings: slots agreed beforehand. One product at a time has a slot, and its advertiser must be entitled to it."""

from typing import Literal

import msgspec
from sqlalchemy.engine import Connection

from affinity.store import entitled_products, get_product, next_change_seq
from auction.booking import Booking, BookingDraft
from auction.store import (
    bookings_between,
    get_booking,
    get_placement,
    insert_booking,
    list_bookings,
    update_booking,
)
from bidder_api.call import Answer, Call, check_match, etag
from bidder_api.errors import Conflict, Invalid, NotFound
from bidder_api.resources import PageQuery, given, make_id, moment, page_of, patch_type, read_page
from bidder_api.store import Deployment, read_deployment
from ledger.agreement import charge_agreed, withdraw_agreed
from ledger.notice import tell_of_funds
from ledger.terms import Identifier

BookingPatch = patch_type(BookingDraft, "BookingPatch")
BookingPage = page_of("Booking", Booking)


class BookingQuery(PageQuery, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Query of the list of bookings; archived ones are listed only when asked for by status."""

    placement_id: Identifier | None = None
    status: Literal["active", "archived"] | None = None


def create_booking(connection: Connection, call: Call) -> Answer:
    """Book a slot."""
    now = moment(call.now_ms)
    booking = Booking(
        **msgspec.structs.asdict(call.body),
        booking_id=make_id("bkg", call),
        status="active",
        created_at=now,
        updated_at=now,
        # Taken first: who takes a number waits for whoever took the one before, so that no two book one slot.
        change_seq=next_change_seq(connection, call.retailer_id),
    )
    _check(connection, call.retailer_id, booking)
    booking = _charged(connection, call, booking)
    insert_booking(connection, call.retailer_id, booking)
    _look_at_funds(connection, call, booking)
    call.log("create", "booking", booking.booking_id, after=booking)
    location = f"/v1/bookings/{booking.booking_id}"
    return Answer(body=booking, headers={"ETag": etag(booking.change_seq), "Location": location})


def read_booking(connection: Connection, call: Call) -> Answer:
    """Return one booking."""
    booking = _find(connection, call)
    return Answer(body=booking, headers={"ETag": etag(booking.change_seq)})


def list_all(connection: Connection, call: Call) -> Answer:
    """Return a page of bookings."""
    query: BookingQuery = call.query

    def read(after: str | None, limit: int) -> list[Booking]:
        return list_bookings(
            connection, call.retailer_id, after, limit, placement_id=query.placement_id, status=query.status
        )

    return Answer(body=read_page(query, read, lambda booking: booking.booking_id))


def change_booking(connection: Connection, call: Call) -> Answer:
    """Change some of a booking."""
    booking = _find(connection, call)
    check_match(call, booking.change_seq)
    if booking.status == "archived":
        raise Conflict("booking_archived", "an archived booking cannot be changed")
    return _store(connection, call, booking, "update", given(call.body))


def archive_booking(connection: Connection, call: Call) -> Answer:
    """Withdraw a booking; its slot is sold again. One that has not begun costs nothing then; again changes nothing."""
    booking = _find(connection, call)
    check_match(call, booking.change_seq)
    if booking.status != "archived":
        _store(connection, call, booking, "archive", {"status": "archived"})
    return Answer()


def _check(connection: Connection, retailer_id: str, booking: Booking) -> None:
    """Check what no single field's type can say, in the order of the fields.

    Raises:
        Invalid: a placement or product that is not there, a slot it does not have, an advertiser who may not advertise
            the product, an end that is not after the start.
        Conflict: the slot, or the product in another slot there, is booked at some moment of that time.
    """
    placement = get_placement(connection, retailer_id, booking.placement_id)
    if placement is None:
        raise Invalid("placement_unknown", f"there is no placement {booking.placement_id!r}", "/placement_id")
    if booking.slot_position > placement.slot_count:
        message = f"slot_position must be at most {placement.slot_count} here, was {booking.slot_position}"
        raise Invalid("slot_beyond_placement", message, "/slot_position")
    if not entitled_products(connection, retailer_id, booking.advertiser_id, [booking.product_id]):
        if get_product(connection, retailer_id, booking.product_id) is None:
            raise Invalid("product_unknown", f"there is no product {booking.product_id!r}", "/product_id")
        message = f"advertiser {booking.advertiser_id} may not advertise product {booking.product_id!r}"
        raise Invalid("product_not_entitled", message, "/advertiser_id")
    if booking.ends_at <= booking.starts_at:
        raise Invalid("booking_ends_before_start", "ends_at must be after starts_at", "/ends_at")
    starts_ms, ends_ms = (int(end.timestamp() * 1000) for end in (booking.starts_at, booking.ends_at))
    for other in bookings_between(connection, retailer_id, booking.placement_id, starts_ms, ends_ms):
        if other.booking_id == booking.booking_id:
            continue
        until = f"by {other.booking_id} from {other.starts_at.isoformat()} to {other.ends_at.isoformat()}"
        if other.slot_position == booking.slot_position:
            raise Conflict("slot_booked", f"slot {other.slot_position} is booked {until}", "/slot_position")
        if other.product_id == booking.product_id:
            message = f"product {other.product_id!r} stands in slot {other.slot_position}, booked {until}"
            raise Conflict("product_booked", message, "/product_id")


def _find(connection: Connection, call: Call) -> Booking:
    booking = get_booking(connection, call.retailer_id, call.path["booking_id"])
    if booking is None:
        raise NotFound("booking", call.path["booking_id"])
    return booking


def _store(connection: Connection, call: Call, before: Booking, action: str, changed: dict[str, object]) -> Answer:
    after = msgspec.structs.replace(
        before,
        **changed,
        updated_at=moment(call.now_ms),
        change_seq=next_change_seq(connection, call.retailer_id),
    )
    if action == "update":
        _check(connection, call.retailer_id, after)
        if _terms(after) != _terms(before):
            after = _charged(connection, call, _uncharged(connection, call, after, "booking changed"))
    elif moment(call.now_ms) < before.starts_at:
        after = _uncharged(connection, call, after, "booking withdrawn")
    update_booking(connection, call.retailer_id, after)
    if after.transaction_id != before.transaction_id:
        _look_at_funds(connection, call, before, after)
    call.log(action, "booking", after.booking_id, before=before, after=after)
    return Answer(body=after, headers={"ETag": etag(after.change_seq)})


def _terms(booking: Booking) -> tuple[object, ...]:
    """Return what its charge depends on."""
    return booking.advertiser_id, booking.price_micros, booking.starts_at


def _charged(connection: Connection, call: Call, booking: Booking) -> Booking:
    """Return the booking with what is posted for it."""
    books = _books(connection)
    transaction_id = charge_agreed(
        connection,
        call.retailer_id,
        booking.booking_id,
        booking.advertiser_id,
        booking.price_micros,
        int(booking.starts_at.timestamp() * 1000),
        books.currency,
        books.time_zone,
        call.now_ms,
    )
    return msgspec.structs.replace(booking, transaction_id=transaction_id)


def _uncharged(connection: Connection, call: Call, booking: Booking, reason: str) -> Booking:
    """Return the booking after what was posted for it is undone."""
    if booking.transaction_id is None:
        return booking
    books = _books(connection)
    withdraw_agreed(
        connection, call.retailer_id, booking.transaction_id, reason, books.currency, books.time_zone, call.now_ms
    )
    return msgspec.structs.replace(booking, transaction_id=None)


def _look_at_funds(connection: Connection, call: Call, *bookings: Booking) -> None:
    """Tell whose funds what is owed for bookings brought low."""
    if any(booking.transaction_id is not None for booking in bookings):
        advertiser_ids = sorted({booking.advertiser_id for booking in bookings})
        currency = _books(connection).currency
        tell_of_funds(connection, call.retailer_id, advertiser_ids, call.low_funds_micros, currency, call.now_ms)


def _books(connection: Connection) -> Deployment:
    found = read_deployment(connection)
    assert found is not None
    return found
