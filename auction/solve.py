"""One page decided by the kernel alone, for `endcap auction solve`: no server, no snapshot, no clock.

Money comes and goes in currency units as exact decimals; in between everything is whole micros. INTERFACE.md names the
fields; those it does not name (`advertiser`, `product`, `placement`, `pin`, `opportunity_cost`, caps per placement,
`sponsored_cap`, pricing `first`) may be left out, and then change nothing.
"""

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any, Literal

import msgspec
import numpy as np
from msgspec import UNSET, Struct, UnsetType, field

from auction.allocation import make_exact, new_outcome
from auction.kernel import (
    BID_MICROS_MAX,
    EXACT_STEPS_MAX,
    GROUP_EVERYONE,
    GROUP_PAID,
    NO_ADVERTISER,
    NO_CANDIDATE,
    NO_PIN,
    PPM,
    SHORTLIST_COUNT,
    SLOT_COUNT_MAX,
    VALUE_MICROS_MAX,
    WEIGHT_PPM_MAX,
    CandidateArrays,
    Int64s,
    OutcomeArrays,
    PageArrays,
    allocate_and_price_nb,
)
from auction.placement import Allocation
from ledger.money import AMOUNT_MICROS_MAX

_MICRO = Decimal("0.000001")
_ZERO = Decimal(0)


class SolveAd(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A candidate.

    Attributes:
        id: its name; ties on one slot go to the lower one.
        brand: what brand caps count.
        type: what is paid for, and so which attention profile holds.
        bid: price offered for one billed event.
        weight: events per impression, times multiplier.
        value: h, the merchant's own value of one impression.
        floor: least bid to take part.
        advertiser: who pays: the brand if left out; null makes the candidate organic.
        product: no product is shown twice: the id if left out.
    """

    id: str
    brand: str
    type: Literal["click", "impression"]
    bid: Decimal = _ZERO
    weight: Decimal = Decimal(1)
    value: Decimal = _ZERO
    floor: Decimal = _ZERO
    advertiser: str | UnsetType | None = UNSET
    product: str | None = None


class SolveSlot(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A slot.

    Attributes:
        eligible: ids of the ads that may take it; null: every ad, []: none.
        placement: the placement it belongs to, for caps per placement.
        pin: id of the ad standing there already: counted by caps, not priced, not part of the welfare.
        opportunity_cost: rho, least attention·(weight·bid + value) of a paid ad here.
    """

    eligible: list[str] | None = None
    placement: str | None = None
    pin: str | None = None
    opportunity_cost: Decimal = _ZERO


class SolveCaps(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Most fills of one brand, and most paid ones; null: no limit."""

    brand_cap: int | None = None
    sponsored_cap: int | None = None


class SolvePage(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A page; `brand_cap` and `sponsored_cap` hold for all of it, those in `placements` for one placement's slots."""

    slots: list[SolveSlot]
    profiles: dict[Literal["click", "impression"], list[Decimal]]
    ads: list[SolveAd]
    pricing: list[Literal["critical", "vcg", "first"]] = field(default_factory=lambda: ["critical"])
    allocation: Allocation = "greedy"
    brand_cap: int | None = None
    sponsored_cap: int | None = None
    score_floor: Decimal = _ZERO
    placements: dict[str, SolveCaps] = {}


def solve_page(page: SolvePage | Mapping[str, Any]) -> dict[str, Any]:
    """Return the page's fills, their welfare, and the winners' prices by each pricing rule asked for.

    Args:
        page: a page, or one as `msgspec.json.decode` gives it. (A float is taken for the decimal it is written as.)

    Raises:
        ValueError: a number is out of its bounds or has too many decimals, an id is there twice, a list is too short
            or too long (`msgspec.ValidationError`, one of these, when the fields do not have this form).
    """
    if not isinstance(page, SolvePage):
        page = msgspec.convert(page, SolvePage)
    candidates, arrays = _to_arrays(page)
    slot_count = len(page.slots)
    outcome = new_outcome(slot_count)
    allocate_and_price_nb(candidates, len(page.ads), arrays, SHORTLIST_COUNT, outcome)
    used: Allocation = "greedy"
    if page.allocation == "exact":
        used = make_exact(candidates, len(page.ads), arrays, outcome, EXACT_STEPS_MAX)

    fills = [None if row == NO_CANDIDATE else page.ads[row].id for row in outcome.winner_row.tolist()]
    answer: dict[str, Any] = {"fills": fills, "welfare": _welfare(candidates, arrays, outcome)}
    price_micros = {"critical": outcome.critical_micros, "vcg": outcome.vcg_micros}
    paid = [slot for slot in range(slot_count) if _is_paid(slot, candidates, outcome)]
    for rule in page.pricing:
        prices = candidates.bid_micros[outcome.winner_row] if rule == "first" else price_micros[rule]
        answer[rule] = {fills[slot]: _plain(Decimal(int(prices[slot])) * _MICRO) for slot in paid}
    if page.allocation == "exact":
        answer["allocation_used"] = used
    return answer


def eager_floor(floor_micros: int, score_floor_micros: int, weight_ppm: int, value_micros: int) -> int:
    """Return the least bid with which a candidate clears both its own floor and the score floor."""
    missing = (score_floor_micros - value_micros) * PPM
    return max(floor_micros, -(-missing // weight_ppm))


def _is_paid(slot: int, candidates: CandidateArrays, outcome: OutcomeArrays) -> bool:
    is_won = outcome.pick_order[slot] >= 0
    return bool(is_won and candidates.advertiser_code[outcome.winner_row[slot]] != NO_ADVERTISER)


def _welfare(candidates: CandidateArrays, page: PageArrays, outcome: OutcomeArrays) -> Decimal:
    total = 0  # attention per mille x ppm x micros, 10^-15 of a currency unit
    for slot, row in enumerate(outcome.winner_row.tolist()):
        if outcome.pick_order[slot] >= 0:
            score = int(candidates.weight_ppm[row]) * int(candidates.bid_micros[row])
            score += int(candidates.value_micros[row]) * PPM
            total += int(page.attention_permille[candidates.charge_code[row], slot]) * score
    return _plain(Decimal(total).scaleb(-15))


def _plain(number: Decimal) -> Decimal:
    """Return the number without trailing zeros, and never as 1E+1."""
    short = number.normalize()
    return short.quantize(Decimal(1)) if short.as_tuple().exponent > 0 else short  # type: ignore[operator]


def _whole(number: Decimal, decimals: int, least: int, most: int, name: str) -> int:
    """Return the number in units of its last decimal place."""
    low, high = (_plain(Decimal(bound).scaleb(-decimals)) for bound in (least, most))
    if not (number.is_finite() and low <= number <= high):
        raise ValueError(f"{name} must be from {low:f} to {high:f}, was {number}")
    scaled = number.scaleb(decimals)
    if scaled != scaled.to_integral_value():
        raise ValueError(f"{name} must have at most {decimals} decimals, was {number}")
    return int(scaled)


def _to_arrays(page: SolvePage) -> tuple[CandidateArrays, PageArrays]:
    slot_count = len(page.slots)
    if not slot_count:
        raise ValueError("slots must be at least 1, were 0")
    if slot_count > SLOT_COUNT_MAX:
        raise ValueError(f"slots must be at most {SLOT_COUNT_MAX}, were {slot_count}")
    row_of = {ad.id: row for row, ad in enumerate(page.ads)}
    if len(row_of) < len(page.ads):
        twice = next(ad.id for row, ad in enumerate(page.ads) if row_of[ad.id] != row)
        raise ValueError(f"ids of ads must differ, {twice!r} is there twice")
    charges = {charge: code for code, charge in enumerate(page.profiles)}
    for ad in page.ads:
        if ad.type not in charges:
            raise ValueError(f"profiles must hold every type in use, {ad.type!r} is missing")
        if ad.advertiser is None and ad.bid:
            raise ValueError(f"an organic ad must not bid, {ad.id!r} bids {ad.bid}")
    return _candidates(page, row_of, [charges[ad.type] for ad in page.ads]), _page(page, row_of)


def _candidates(page: SolvePage, row_of: dict[str, int], charge_code: list[int]) -> CandidateArrays:
    ads = page.ads
    score_floor = _whole(page.score_floor, 6, 0, AMOUNT_MICROS_MAX, "score_floor")
    weight = [_whole(ad.weight, 6, 1, WEIGHT_PPM_MAX, "weight") for ad in ads]
    value = [_whole(ad.value, 6, 0, VALUE_MICROS_MAX, "value") for ad in ads]
    floor = [_whole(ad.floor, 6, 0, AMOUNT_MICROS_MAX, "floor") for ad in ads]
    payers = [ad.brand if isinstance(ad.advertiser, UnsetType) else ad.advertiser for ad in ads]
    advertisers = _codes([payer for payer in payers if payer is not None])
    brands = _codes([ad.brand for ad in ads])
    products = [ad.id if ad.product is None else ad.product for ad in ads]
    product_codes = _codes(products)
    places = {name: place for place, name in enumerate(sorted(row_of))}
    eligible = [0] * len(ads)
    for slot, asked in enumerate(page.slots):
        rows = range(len(ads)) if asked.eligible is None else {row_of[i] for i in asked.eligible if i in row_of}
        for row in rows:
            eligible[row] |= 1 << slot
    return CandidateArrays(
        bid_micros=_int64s([_whole(ad.bid, 6, 0, BID_MICROS_MAX, "bid") for ad in ads]),
        weight_ppm=_int64s(weight),
        value_micros=_int64s(value),
        floor_micros=_int64s([eager_floor(f, score_floor, w, h) for f, w, h in zip(floor, weight, value, strict=True)]),
        advertiser_code=np.array([NO_ADVERTISER if p is None else advertisers[p] for p in payers], np.int32),
        brand_code=np.array([brands[ad.brand] for ad in ads], np.int32),
        product_code=np.array([product_codes[product] for product in products], np.int32),
        charge_code=np.array(charge_code, np.int8),
        tie_key=np.array([places[ad.id] for ad in ads], np.uint64),
        eligible_slots=np.array(eligible, np.uint64),
        group_bits=np.zeros(len(ads), np.uint64),
    )


def _page(page: SolvePage, row_of: dict[str, int]) -> PageArrays:
    slot_count = len(page.slots)
    for charge, profile in page.profiles.items():
        if len(profile) != slot_count:
            raise ValueError(f"profile {charge!r} must have one number per slot, {slot_count}, had {len(profile)}")
    caps = _caps(page.brand_cap, page.sponsored_cap, _bits([True] * slot_count))
    for name, limits in page.placements.items():
        caps += _caps(limits.brand_cap, limits.sponsored_cap, _bits([slot.placement == name for slot in page.slots]))
    pinned: set[str] = set()
    for slot in page.slots:
        if slot.pin is None:
            continue
        if slot.pin not in row_of:
            raise ValueError(f"a pin must be the id of an ad, was {slot.pin!r}")
        ad = page.ads[row_of[slot.pin]]
        product = ad.id if ad.product is None else ad.product
        if product in pinned:
            raise ValueError(f"a product must be pinned once, {product!r} is there twice")
        pinned.add(product)
    opportunity_cost = [
        1000 * PPM * _whole(slot.opportunity_cost, 6, 0, BID_MICROS_MAX, "opportunity_cost") for slot in page.slots
    ]
    return PageArrays(
        attention_permille=np.array(
            [[_whole(a, 3, 0, 1000, "attention") for a in profile] for profile in page.profiles.values()], np.int64
        ).reshape(len(page.profiles), slot_count),
        opportunity_cost=_int64s(opportunity_cost),
        pinned_row=_int64s([NO_PIN if slot.pin is None else row_of[slot.pin] for slot in page.slots]),
        cap_bits=np.array([groups for groups, _, _, _ in caps], np.uint64),
        cap_per_brand=np.array([is_per_brand for _, is_per_brand, _, _ in caps], np.int8),
        cap_slots=np.array([slots for _, _, slots, _ in caps], np.uint64),
        cap_max=_int64s([most for _, _, _, most in caps]),
    )


def _caps(brand_cap: int | None, sponsored_cap: int | None, slots: int) -> list[tuple[int, int, int, int]]:
    for name, cap in (("brand_cap", brand_cap), ("sponsored_cap", sponsored_cap)):
        if cap is not None and cap < 0:
            raise ValueError(f"{name} must be at least 0, was {cap}")
    asked = ((GROUP_EVERYONE, 1, slots, brand_cap), (GROUP_PAID, 0, slots, sponsored_cap))
    return [
        (groups, per_brand, where, min(cap, SLOT_COUNT_MAX))
        for groups, per_brand, where, cap in asked
        if cap is not None
    ]


def _bits(is_in: Sequence[bool]) -> int:
    return sum(1 << number for number, this in enumerate(is_in) if this)


def _codes(words: Sequence[str]) -> dict[str, int]:
    return {word: code for code, word in enumerate(dict.fromkeys(words))}


def _int64s(numbers: Sequence[int]) -> Int64s:
    return np.array(numbers, np.int64)
