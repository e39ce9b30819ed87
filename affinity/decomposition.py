"""How much of a change of revenue each of its factors brought about, in parts that add up to it exactly.

Revenue is a product of factors: visits x share of them that looked at the category x … x revenue per unit. By the
logarithmic mean Divisia index a factor's part is L(V₀, V₁) · ln(x₁/x₀), with L(a, b) = (a - b) / ln(a/b): the parts
have no remainder and do not depend on the order of the factors.

Source: Ang, "The LMDI approach to decomposition analysis", Energy Policy 33, 2005; for zeros its limits, as in Ang and
Liu, "Handling zero values in the logarithmic mean Divisia index decomposition approach", Energy Policy 35, 2007.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Float64s = NDArray[np.float64]
Factors = Mapping[str, float | None]


def log_mean(before: Any, after: Any) -> Float64s:
    """Return the logarithmic mean of two amounts, which lies between them; 0 where one of them is 0."""
    first, second = np.asarray(before, np.float64), np.asarray(after, np.float64)
    is_usable = (first > 0) & (second > 0)
    ratio = np.where(is_usable, second / np.where(is_usable, first, 1.0), 1.0)
    is_near = np.abs(ratio - 1) < 1e-6  # the formula would be 0/0
    mean = np.where(is_near, (first + second) / 2, (second - first) / np.where(is_near, 1.0, np.log(ratio)))
    return np.where(is_usable, mean, 0.0)


def decompose(before_micros: int, after_micros: int, before: Factors, after: Factors) -> dict[str, int]:
    """Split a change of revenue among the factors whose product it is, in whole micros.

    A factor that is known in neither period has no part, and one known in one of them is taken as unchanged. If revenue
    was or becomes nothing, the first factor that was or becomes nothing has the whole change.

    Args:
        before_micros: revenue of the earlier period, at least 0.
        after_micros: of the later one.
        before: the factors of the earlier period, in the order cause before effect.
        after: the same factors of the later one.

    Returns:
        Each factor's part; their sum is `after_micros - before_micros`.
    """
    change = after_micros - before_micros
    before = {name: x for name, x in before.items() if x is not None or after[name] is not None}
    if not before_micros or not after_micros:
        turned = next((name for name in before if before[name] == 0 or after[name] == 0), list(before)[-1])
        return {name: change if name == turned else 0 for name in before}
    weight = float(log_mean(before_micros, after_micros))
    parts: dict[str, float] = {}
    for name, x_before in before.items():
        x_after = after[name]
        parts[name] = weight * math.log(x_after / x_before) if x_before and x_after else 0.0
    return round_to_sum(parts, change)


def price_parts(
    before_micros: Float64s, after_micros: Float64s, price_before: Float64s, price_after: Float64s
) -> Float64s:
    """Return what its price changed of each product's revenue; 0 where it was not sold in both periods.

    What a category's change of revenue per unit has beyond its products' parts is mix: dearer or cheaper products sold
    instead of others.

    Args:
        before_micros: (P,) revenue before, made as long a period as the later one.
        after_micros: (P,) revenue after.
        price_before: (P,) paid per unit before.
        price_after: (P,) the same, after.
    """
    is_sold = (before_micros > 0) & (after_micros > 0)
    ratio = np.where(is_sold, price_after / np.where(is_sold, price_before, 1.0), 1.0)
    return log_mean(before_micros, after_micros) * np.log(ratio)


def round_to_sum(parts: Mapping[str, float], total: int) -> dict[str, int]:
    """Return the parts in whole numbers that add up to `total`; the greatest takes what rounding leaves."""
    whole = {name: round(part) for name, part in parts.items()}
    greatest = max(whole, key=lambda name: abs(whole[name]))
    whole[greatest] += total - sum(whole.values())
    return whole
