"""What one auction may know of one visitor: arrays and a few small maps, no history."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from affinity.computed import DAY_MS, CustomerScale
from affinity.pseudonym import NO_VISITOR
from affinity.recall import cart_products, viewed_products
from affinity.record import VisitorRecord
from affinity.sessions import session_ends_ms
from affinity.settings import Settings
from affinity.targets import Targets, frozen

if TYPE_CHECKING:
    from affinity.model import BoundModel

Rows = NDArray[np.int32]
Ppms = NDArray[np.int64]

NO_ROWS: Rows = frozen(np.zeros(0, np.int32))
NO_PPMS: Ppms = frozen(np.zeros(0, np.int64))
NO_AFFINITY: NDArray[np.float32] = frozen(np.zeros(0, np.float32))
NEVER_SERVED: Mapping[str, list[int]] = MappingProxyType({})


class Recalled(Struct, frozen=True, eq=False):
    """What a visitor came across before, as rows of the bound model's products, each once.

    Attributes:
        viewed_row: viewed and not bought since, the last viewed first.
        cart_row: in the cart now, the last added first.
    """

    viewed_row: Rows = NO_ROWS
    cart_row: Rows = NO_ROWS


NOTHING_RECALLED = Recalled()


class VisitorView(Struct, frozen=True, kw_only=True, eq=False):
    """What one auction may know of one visitor, as of one moment.

    Attributes:
        pseudonym: keyed hash of the visitor's id; NO_VISITOR (zeros) without consent.
        person_pseudonym: the same of the customer the visitor is linked to; the pseudonym where there is none.
        has_consent: whether anything of the visitor may be used.
        audience_bits: bit a % 64 of word a // 64: the visitor is in the targets' audience a.
        pattern_bits: likewise: the targets' pattern holds.
        product_row: (V,) ascending rows, of the bound model's products, with a quality of this visitor's own.
        quality_ppm: (V,) predicted clicks per million showings of those; all others have the model's base.
        affinity: (V,) 0 to 1: how much the visitor leans towards each, 1 for the strongest.
        dismissed_row: ascending rows of products the visitor does not want to see.
        seen_at_ms: bid id to the times the visitor was shown it, oldest first.
        segments: named segments of the visitor's profile.
        recalled: what they viewed last and have in the cart; None where nobody asked, and of an anonymous visitor.
    """

    pseudonym: bytes
    person_pseudonym: bytes
    has_consent: bool
    audience_bits: NDArray[np.uint64]
    pattern_bits: NDArray[np.uint64]
    product_row: Rows = NO_ROWS
    quality_ppm: Ppms = NO_PPMS
    affinity: NDArray[np.float32] = NO_AFFINITY
    dismissed_row: Rows = NO_ROWS
    seen_at_ms: Mapping[str, list[int]] = NEVER_SERVED
    segments: frozenset[str] = frozenset()
    recalled: Recalled | None = None


def anonymous_view(targets: Targets) -> VisitorView:
    """Return the view of a visitor without consent or id: in no audience, with no pattern, of no known taste."""
    return VisitorView(
        pseudonym=NO_VISITOR,
        person_pseudonym=NO_VISITOR,
        has_consent=False,
        audience_bits=targets.no_audience_bits,
        pattern_bits=targets.no_pattern_bits,
    )


def view_visitor(
    record: VisitorRecord | None,
    targets: Targets,
    model: "BoundModel",
    now_ms: int,
    *,
    pseudonym: bytes,
    settings: Settings,
    scale: CustomerScale,
    targetable: NDArray[np.uint64] | None = None,
    recalls: bool = False,
) -> VisitorView:
    """Return what an auction now may know of a visitor who consented.

    The answer is kept with the record until something happens, time changes it, or targets or model are others.

    Args:
        record: the visitor's (or their customer's); None where nothing is known.
        targets: those of the snapshot the auction reads.
        model: bound to the products of that snapshot.
        now_ms: moment of the auction.
        pseudonym: the visitor's own.
        settings: this package's.
        scale: how the shop's customers compare.
        targetable: bits of the audiences that may be targeted; None for all of them.
        recalls: also say what they viewed last and have in the cart.
    """
    kept = None if record is None else record.view
    if (
        record is not None
        and kept is not None
        and record.view_targets is targets.identity
        and record.view_model is model
        and record.view_mask is targetable
        and now_ms <= record.view_until_ms
        and kept.pseudonym == pseudonym
        and (kept.recalled is not None or not recalls)
    ):
        return kept
    audience_bits, audience_until_ms = targets.audience_bits(record, scale, now_ms)
    if targetable is not None:
        audience_bits = frozen(audience_bits & targetable)
    pattern_bits, pattern_until_ms = targets.pattern_bits(record, settings, now_ms)
    if record is None:
        return VisitorView(
            pseudonym=pseudonym,
            person_pseudonym=pseudonym,
            has_consent=True,
            audience_bits=audience_bits,
            pattern_bits=pattern_bits,
        )
    ranked = model.rank_visitor(record.events, now_ms, lambda: record.segments(scale, now_ms))
    view = VisitorView(
        pseudonym=pseudonym,
        person_pseudonym=record.pseudonym,
        has_consent=True,
        audience_bits=audience_bits,
        pattern_bits=pattern_bits,
        product_row=ranked.product_row,
        quality_ppm=ranked.quality_ppm,
        affinity=ranked.affinity,
        dismissed_row=model.rows_of(record.dismissed),
        seen_at_ms=record.served_at_ms,
        segments=frozenset(record.profile.segments) if record.profile is not None else frozenset(),
        recalled=_recall(record, model) if recalls else None,
    )
    record.view_targets, record.view_model, record.view_mask = targets.identity, model, targetable
    record.view = view
    record.view_until_ms = min(audience_until_ms, pattern_until_ms)
    if not record.events:  # ranked for by segments, which change with time
        record.view_until_ms = min(record.view_until_ms, now_ms + DAY_MS)
    ends_ms = session_ends_ms(record.events)
    if now_ms <= ends_ms:  # who comes back later is ranked for as one who begins anew
        record.view_until_ms = min(record.view_until_ms, ends_ms)
    return view


def _recall(record: VisitorRecord, model: "BoundModel") -> Recalled:
    return Recalled(
        model.rows_in_order(viewed_products(record.events, record.bought_product)),
        model.rows_in_order(cart_products(record.events)),
    )
