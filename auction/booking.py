"""Space agreed beforehand: a slot of a placement for one product, for a time, at a price invoiced as agreed."""

from typing import Annotated, Literal

from msgspec import Meta, Struct

from affinity.catalog import AdvertiserId, ProductId
from affinity.navigation import Moment
from ledger.money import AmountMicros
from ledger.terms import Identifier


class BookingDraft(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Body of `POST /v1/bookings`.

    Attributes:
        starts_at, ends_at: the slot is the product's from the one until just before the other.
        price_micros: for all of it, whatever is seen or clicked; charged at once, by no event, and invoiced with the
            month it starts in.
    """

    placement_id: Identifier
    slot_position: Annotated[int, Meta(ge=1, le=50)]
    product_id: ProductId
    advertiser_id: AdvertiserId
    starts_at: Moment
    ends_at: Moment
    price_micros: AmountMicros


class Booking(Struct, frozen=True, kw_only=True):
    """A booking as it stands; an archived one is withdrawn.

    Attributes:
        transaction_id: what was posted for it; None where it costs nothing.
    """

    booking_id: str
    placement_id: str
    slot_position: int
    product_id: str
    advertiser_id: str
    starts_at: Moment
    ends_at: Moment
    price_micros: int
    status: Literal["active", "archived"]
    created_at: Moment
    updated_at: Moment
    change_seq: int
    transaction_id: str | None = None


class BookedSlot(Struct, frozen=True):
    """A booking as an auction reads it."""

    booking_id: str
    slot_position: int
    product_row: int
    advertiser_row: int
    starts_ms: int
    ends_ms: int
