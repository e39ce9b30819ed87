"""Money as whole micros, and the bounds every amount is checked against at the door."""

from typing import Annotated, NewType

from msgspec import Meta

Micros = NewType("Micros", int)  # whole millionths of the deployment's one currency

AMOUNT_MICROS_MAX = 10**12  # a million currency units: the most one amount on the wire may be
BID_MICROS_MAX = 10**9  # the most one billed event may cost; keeps a * w * b inside int64

AmountMicros = Annotated[int, Meta(ge=0, le=AMOUNT_MICROS_MAX)]
PositiveMicros = Annotated[int, Meta(gt=0, le=AMOUNT_MICROS_MAX)]


def impression_price(cpm_micros: int) -> Micros:
    """Return the price of one impression bid at so much per thousand.

    Raises:
        ValueError: the CPM does not divide into whole micros per impression.
    """
    per_impression, rest = divmod(cpm_micros, 1_000)
    if rest:
        raise ValueError(f"cpm_micros must be a multiple of 1000, was {cpm_micros}")
    return Micros(per_impression)
