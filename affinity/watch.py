"""Whether predicted clicks come true: the watch over a placement's calibration, from what was counted of late."""

from math import exp, sqrt

import numpy as np
from msgspec import Struct

from affinity.clicks import Watched

RATIO_MIN, RATIO_MAX = 0.95, 1.05  # clicks over predicted clicks
ERROR_MAX = 0.01  # of the expected calibration error
CLICKS_NEEDED = 1_000  # to say more than chance would
NORMAL_95 = 1.959964


class Calibration(Struct, frozen=True):
    """How predictions held on one placement.

    Attributes:
        shown, clicks: of late; fractions, as older ones count less.
        expected_clicks: what was predicted, with the slots' attention.
        ratio: clicks over expected clicks; null where nothing was expected.
        ratio_low, ratio_high: ends of its 95 % interval, by the number of clicks.
        error: expected calibration error: how far predicted and true clicks per showing lie apart, on average.
        is_sound: whether both are within bounds; null with fewer than 1,000 clicks.
    """

    placement_id: str
    shown: float
    clicks: float
    expected_clicks: float
    ratio: float | None
    ratio_low: float | None
    ratio_high: float | None
    error: float | None
    is_sound: bool | None


def calibration_of(watched: Watched) -> Calibration:
    """Return how predictions held."""
    shown, clicks = float(watched.shown.sum()), float(watched.clicked.sum())
    expected = float(watched.expected.sum())
    ratio = clicks / expected if expected > 0 else None
    low = high = error = None
    if ratio is not None and clicks > 0:
        side = NORMAL_95 / sqrt(clicks)  # of the logarithm
        low, high = ratio * exp(-side), ratio * exp(side)
    if shown > 0:
        error = float(np.abs(watched.expected - watched.clicked).sum()) / shown
    is_sound = None
    if clicks >= CLICKS_NEEDED and ratio is not None and error is not None:
        is_sound = RATIO_MIN <= ratio <= RATIO_MAX and error <= ERROR_MAX
    return Calibration(
        placement_id=watched.placement_id,
        shown=round(shown, 1),
        clicks=round(clicks, 1),
        expected_clicks=round(expected, 2),
        ratio=_rounded(ratio),
        ratio_low=_rounded(low),
        ratio_high=_rounded(high),
        error=_rounded(error),
        is_sound=is_sound,
    )


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 6)
