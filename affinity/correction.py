"""How far clicks bear out what the model predicts: a factor on its quality per placement and product, shrunk to 1.

A product shown under attention a_t, with predicted quality q for the visitor at hand, is taken to be clicked a_t·q·f
times, where f is the placement's and the product's own. With clicks C and predicted clicks E = Σ a_t·q over what was
shown, counters of a Beta posterior with the model's mean come, as clicks are rare, to a Gamma posterior of f::

    f of the shop                   = (2 + C) / (2 + E)
    f of a placement, over that     = (5 + C) / (5 + E)     with E taken at the shop's f
    f of a product in it, over that = (k + C) / (k + E)     with E taken at the placement's f

What the product got in other placements counts half there. k, how many predicted clicks the model weighs as much as, is
estimated from all products at once: by how much more their clicks scatter about the predictions than chance alone has
them scatter. Where the model is right, k is great and hardly anything is changed. As the mean of a posterior, f does
not promise too much of products that are shown because they did well.

Source: DuMouchel, "Bayesian Data Mining in Large Frequency Tables", 1999 (the Gamma-Poisson shrinker); DerSimonian and
Laird, "Meta-analysis in clinical trials", 1986 (strength by moments); Ibrahim and Chen, "Power prior distributions for
regression models", 2000 (other placements' counts at half their weight).
"""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from affinity.clicks import Clicks, PlacementClicks, attention_of

Float64s = NDArray[np.float64]
Int32s = NDArray[np.int32]
Int64s = NDArray[np.int64]

PPM = 1_000_000
SHOP_STRENGTH = 2.0  # predicted clicks the model weighs as much as: its level was assumed, not learnt
PLACEMENT_STRENGTH = 5.0  # and the shop's level against a placement's own
ELSEWHERE_WEIGHT = 0.5  # what a product's counts of other placements weigh
STRENGTH = 10.0  # of the model against a product's own clicks, before anything is known of it
STRENGTH_WEIGHT = 100.0  # and how much that counts: like a hundred squares of a predicted click
STRENGTH_MIN, STRENGTH_MAX = 1.0, 1_000.0
STRENGTH_ROUNDS = 5
FACTOR_MIN, FACTOR_MAX = 0.01, 100.0
DRAWN_LEAST, DRAWN_MOST = 0.5, 2.0  # of the mean


class Correction(Struct, frozen=True, eq=False):
    """The factors on the model's quality in one placement; N products that have counters.

    Attributes:
        usual: of products that have none.
        strength: predicted clicks the model weighs as much as.
        number: (N,) the products, as `Corrections.product_ids` has them.
        shape, rate: (N,) of each product's Gamma posterior; its mean is the factor.
    """

    usual: float
    strength: float
    number: Int32s
    shape: Float64s
    rate: Float64s

    def factors_ppm(self, product_count: int, row_of: Int32s) -> Int64s:
        """Return (P,) the factors, in parts per million, of a snapshot's products.

        Args:
            product_count: P.
            row_of: row of each numbered product in the snapshot, -1 where it is not in it.
        """
        shape, rate = self._posterior(product_count, row_of)
        return _as_ppm(shape / rate)

    def drawn_ppm(self, product_count: int, row_of: Int32s, seed: int) -> Int64s:
        """Return likewise factors drawn from their posteriors, none under half its mean or over twice.

        The same seed draws the same. Products without counters are drawn from what is usual: of them least is known.
        """
        shape, rate = self._posterior(product_count, row_of)
        mean = shape / rate
        drawn = np.random.Generator(np.random.PCG64(seed)).standard_gamma(shape) / rate
        return _as_ppm(np.clip(drawn, DRAWN_LEAST * mean, DRAWN_MOST * mean))

    def _posterior(self, product_count: int, row_of: Int32s) -> tuple[Float64s, Float64s]:
        shape = np.full(product_count, self.strength)
        rate = np.full(product_count, self.strength / self.usual)
        row = row_of[self.number]
        is_there = row >= 0
        shape[row[is_there]], rate[row[is_there]] = self.shape[is_there], self.rate[is_there]
        return shape, rate


class Corrections(Struct, frozen=True, eq=False):
    """Every placement's, as of one moment.

    Attributes:
        version: greater than that of the ones before; in serving the moment, UTC milliseconds since 1970.
        product_ids: by number; only the first `product_count` are meant.
        seed: of what is drawn from them; nothing of bids is in it.
        of: by placement.
    """

    version: int
    product_ids: list[str]
    product_count: int
    seed: int
    of: dict[str, Correction]


class _Residuals(Struct, eq=False):
    """Clicks of a placement's products, and what was predicted of them at the placement's factor.

    Attributes:
        all_clicked, all_predicted: of what has no row too, by the model alone.
    """

    factor: float
    number: Int32s
    clicked: Float64s
    expected: Float64s
    all_clicked: float
    all_predicted: float


def correct(
    clicks: Clicks, attention_permille: Mapping[str, Sequence[int]], version: int = 1, seed: int = 0
) -> Corrections:
    """Return the corrections that follow from what was counted.

    Args:
        clicks: the counters.
        attention_permille: attention to each slot, of each placement there is; others are left out.
        version: of the corrections.
        seed: of what will be drawn from them.
    """
    counted = {one.placement_id: one for one in clicks.placements}
    nothing = np.zeros((0, 1))
    none = PlacementClicks("", np.zeros(0, np.int32), nothing, nothing, nothing)
    residuals = {name: _at_model(counted.get(name, none), slots) for name, slots in attention_permille.items()}
    shop = _factor(SHOP_STRENGTH, residuals.values(), 1.0)
    for one in residuals.values():
        one.factor = _factor(PLACEMENT_STRENGTH, [one], shop)
        one.expected *= one.factor
    strength = estimate_strength(
        np.concatenate([one.clicked for one in residuals.values()] or [np.zeros(0)]),
        np.concatenate([one.expected for one in residuals.values()] or [np.zeros(0)]),
    )
    everywhere = np.zeros((2, clicks.product_count))
    for one in residuals.values():
        everywhere[0, one.number] += one.clicked
        everywhere[1, one.number] += one.expected
    of: dict[str, Correction] = {}
    for name, one in residuals.items():
        clicked, expected = everywhere[:, one.number]
        shape = strength + one.clicked + ELSEWHERE_WEIGHT * (clicked - one.clicked)
        rate = strength + one.expected + ELSEWHERE_WEIGHT * (expected - one.expected)
        of[name] = Correction(one.factor, strength, one.number, shape, rate / one.factor)
    return Corrections(version, clicks.product_ids, clicks.product_count, seed, of)


def estimate_strength(clicked: Float64s, expected: Float64s, fitted_count: int = 1) -> float:
    """Return how many predicted clicks a prediction is worth, by how far clicks scatter about predictions.

    Under a Gamma posterior with mean 1 and strength k, a product's clicks scatter about its E predicted ones with the
    variance E + E²/k.

    Args:
        clicked, expected: (N,) clicks of each product, and predicted ones.
        fitted_count: numbers the predictions were fitted to the same clicks by; where there are hardly more products
            than that, there is no telling, and it is taken to be what it is before anything is known.
    """
    surplus, square = (clicked - expected) ** 2, expected**2
    product_count = float(expected.sum()) ** 2 / max(float(square.sum()), 1e-12)  # counted by their weight
    if product_count <= 2 * fitted_count:
        return STRENGTH
    freedom = product_count / (product_count - fitted_count)
    surplus = surplus * freedom - expected
    inverse = 1.0 / STRENGTH
    for _ in range(STRENGTH_ROUNDS):
        weight = 1.0 / (1.0 + expected * inverse) ** 2
        scatter, scale = float((weight * surplus).sum()), float((weight * square).sum())
        found = (scatter + STRENGTH_WEIGHT / STRENGTH) / (scale + STRENGTH_WEIGHT)
        inverse = min(max(found, 1.0 / STRENGTH_MAX), 1.0 / STRENGTH_MIN)
    return 1.0 / inverse


def _at_model(clicks: PlacementClicks, attention_permille: Sequence[int]) -> _Residuals:
    attention = attention_of(clicks, attention_permille)
    # Not by matrix products: those begin threads of their own, beside the one that fills pages.
    expected = np.einsum("nt,t->n", clicks.predicted, attention)
    clicked = np.einsum("nt,t->n", clicks.clicked, (attention > 0).astype(np.float64))
    is_one = clicks.number >= 0
    return _Residuals(
        1.0, clicks.number[is_one], clicked[is_one], expected[is_one], float(clicked.sum()), float(expected.sum())
    )


def _factor(strength: float, residuals: Iterable[_Residuals], above: float) -> float:
    """Return the factor of what was counted, drawn to that of the level above."""
    clicked = predicted = 0.0
    for one in residuals:
        clicked += one.all_clicked
        predicted += one.all_predicted
    factor = above * (strength + clicked) / (strength + above * predicted)
    return min(max(factor, FACTOR_MIN), FACTOR_MAX)


def _as_ppm(factor: Float64s) -> Int64s:
    return np.rint(np.clip(factor, FACTOR_MIN, FACTOR_MAX) * PPM).astype(np.int64)
