"""How much each slot of a placement is looked at, learnt from where products were clicked: expectation-maximisation.

A product in slot t is clicked a_t·q·f times, as `correction.py` has it: a_t the attention, q the model's prediction, f
how much more or less than predicted the product is clicked, which is hidden. Good products stand in good slots, so that
clicks per showing alone mistake the one for the other; but a product that stood in several slots tells them apart. The
two steps, repeated until nothing moves::

    E   f of each product = (k + its clicks) / (k + Σ a_t·q)         the mean of its Gamma posterior
    M   a_t               = clicks in slot t / Σ q·f over what stood there

Only ratios are told by clicks: the first slot keeps the attention it has. Intervals are from the curvature of the
likelihood with f integrated out, so that they are wide where products hardly change places.

Source: Wang, Golbandi, Bendersky, Metzler and Najork, "Position Bias Estimation for Unbiased Learning to Rank in
Personal Search", 2018 (regression EM); Dempster, Laird and Rubin, 1977.
"""

from collections.abc import Sequence

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from affinity.clicks import PlacementClicks
from affinity.correction import estimate_strength

Float64s = NDArray[np.float64]

ROUND_COUNT_MAX = 1_000
STILL = 1e-7  # change of a logarithm under which nothing moves
NORMAL_95 = 1.959964
NO_WEIGHT = 1e-9  # of a slot without an estimate, when it has to give way


class SlotAttention(Struct, frozen=True):
    """What is known of one slot; in per mille, the first slot having what it is set to.

    Attributes:
        set_permille: what the placement says now.
        clicks: in it.
        estimate_permille: what its clicks say; null without any showing there.
        low_permille, high_permille: ends of the 95 % interval; of the first slot, which all others are compared with,
            the estimate. All three may be over 1,000.
        proposed_permille: the estimates, not rising down the page; without one, what is set.
    """

    slot_position: int
    set_permille: int
    clicks: float
    estimate_permille: int | None
    low_permille: int | None
    high_permille: int | None
    proposed_permille: int


def estimate_attention(clicks: PlacementClicks, set_permille: Sequence[int]) -> list[SlotAttention]:
    """Return what the clicks on a placement say of its slots, in their order.

    Args:
        clicks: its counters.
        set_permille: attention as the placement has it now.
    """
    slot_count = min(len(set_permille), clicks.shown.shape[1])
    predicted, clicked = clicks.predicted[1:, :slot_count], clicks.clicked[1:, :slot_count]
    in_slot = clicked.sum(0)
    usable = np.flatnonzero(in_slot > 0)
    usable = usable[predicted[:, usable].sum(0) > 0]
    start = np.asarray(set_permille, np.float64)[usable] / 1_000
    log_attention, information = fit_log_attention(predicted[:, usable], clicked[:, usable], start)
    found = _relative(usable, log_attention, information, set_permille)
    proposed = _not_rising(found, in_slot, set_permille)
    slots: list[SlotAttention] = []
    for slot, usual in enumerate(set_permille):
        clicks_there = round(float(in_slot[slot]), 1) if slot < slot_count else 0.0
        estimate, low, high = found.get(slot, (None, None, None))
        slots.append(SlotAttention(slot + 1, usual, clicks_there, estimate, low, high, proposed[slot]))
    return slots


def fit_log_attention(predicted: Float64s, clicked: Float64s, start: Float64s) -> tuple[Float64s, Float64s]:
    """Return (T,) logarithms of attention, up to a common term, and their (T, T) Fisher information.

    Args:
        predicted: (N, T) clicks predicted of each product in each slot, if all showings were looked at.
        clicked: (N, T) clicks.
        start: (T,) attention to begin with.
    """
    total, in_slot = clicked.sum(1), clicked.sum(0)
    log_attention, strength = np.log(start), 0.0
    for _ in range(ROUND_COUNT_MAX):
        attention = np.exp(log_attention)
        expected = predicted @ attention
        level = total.sum() / max(float(expected.sum()), 1e-12)
        strength = estimate_strength(total, expected * level, len(start))
        liking = (strength + total) / (strength + expected * level) * level
        moved = np.log(in_slot / (liking @ predicted))
        moved += log_attention[0] - moved[0] if len(moved) else 0.0
        change = np.abs(moved - log_attention).max(initial=0.0)
        log_attention = moved
        if change < STILL:
            break
    attention = np.exp(log_attention)
    expected = predicted * attention
    level = total.sum() / max(float(expected.sum()), 1e-12)
    expected *= level
    above = (strength + total) / (strength + expected.sum(1))
    information = np.diag(above @ expected) - (expected.T * (above / (strength + expected.sum(1)))) @ expected
    return log_attention, information


def _relative(
    usable: NDArray[np.int64], log_attention: Float64s, information: Float64s, set_permille: Sequence[int]
) -> dict[int, tuple[int, int, int]]:
    """Return estimate and interval of each slot beside the first, which has what it is set to."""
    if not len(usable):
        return {}
    variance = np.linalg.pinv(information)
    spread = np.diag(variance) + variance[0, 0] - 2.0 * variance[0]
    error = np.sqrt(np.maximum(spread, 0.0))
    relative = log_attention - log_attention[0]
    level = set_permille[int(usable[0])]
    ends = [level * np.exp(relative + side * NORMAL_95 * error) for side in (0, -1, 1)]
    return {
        int(slot): (_least(ends[0][at]), _least(ends[1][at]), _least(ends[2][at])) for at, slot in enumerate(usable)
    }


def _not_rising(found: dict[int, tuple[int, int, int]], clicks: Float64s, set_permille: Sequence[int]) -> list[int]:
    """Return the attention to set: the estimates, pooled where they would rise, beside the first slot's own."""
    blocks: list[list[float]] = []  # value, weight, slots
    for slot, usual in enumerate(set_permille):
        value = float(found[slot][0]) if slot in found else float(usual)
        blocks.append([value, float(clicks[slot]) if slot in found else NO_WEIGHT, 1])
        while len(blocks) > 1 and blocks[-2][0] < blocks[-1][0]:
            last, before = blocks.pop(), blocks.pop()
            weight = last[1] + before[1]
            value = (last[0] * last[1] + before[0] * before[1]) / weight
            blocks.append([value, weight, last[2] + before[2]])
    scale = set_permille[0] / blocks[0][0]
    return [min(_least(value * scale), 1_000) for value, _, count in blocks for _ in range(int(count))]


def _least(value: float) -> int:
    return max(round(float(value)), 1)
