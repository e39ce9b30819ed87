"""What stands in for a product's own history: how near its category and brand are to what a visitor was about.

A ranking gives some candidates a probability of their own (`kernel.rank_visitor_nb`). What is left is shared among all
other products of the catalogue, new ones too, in proportion to their weights: each the weight of how it stands to the
visitor (`kernel.kinship_nb`) times what its popularity gives it anyway.

Source: McFadden, "Conditional logit analysis of qualitative choice behavior" (1974).
"""

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from affinity.calibration import fit_monotone
from affinity.kernel import KINSHIP_COUNT, NEARNESS_COUNT, SCARCE, SEEN_COUNT, Kinds, count_kin_of_many_nb

Float32s = NDArray[np.float32]
Float64s = NDArray[np.float64]
Int32s = NDArray[np.int32]
Int64s = NDArray[np.int64]

STRENGTHS = (0.0, 0.5, 0.75, 1.0)  # powers of the weights: 0 leaves every product its popularity alone
PRIOR_STRENGTH = 0.5  # of popularity alone, against what came next
OWN_EFFECT = 0.3  # of one kinship, against what it has in common with others
LOG_MAX = 8.0
CHOOSING_SHARE = 1 / 3  # of the cases
HIT_COUNT_MIN = 20  # products that came next and were no candidates; with fewer nothing is learnt
LEAST_SHARE = 1e-12


class Kin(Struct, frozen=True, eq=False):
    """The products that are no candidates of C visitors, by how they stand to them.

    Attributes:
        usual: (C, KINSHIP_COUNT) sums of what popularity gives them.
        hit: (C, KINSHIP_COUNT) how many of them came next.
    """

    usual: Float64s
    hit: Float64s

    def log_likelihood(self, weight: Float64s) -> Float64s:
        """Return (C,) of what came next: each product shares by its weight times its popularity, here taken as 1."""
        log_share = np.log(weight) - np.log(np.maximum(self.usual @ weight, LEAST_SHARE))[:, None]
        return np.asarray((self.hit * log_share).sum(axis=1))

    def gain(self, weight: Float64s) -> Float64s:
        """Return (C,) by how much what came next is likelier, as a logarithm, than by popularity alone."""
        return self.log_likelihood(weight) - self.log_likelihood(np.ones(KINSHIP_COUNT))

    def of_scarce(self) -> "Kin":
        """Return it of products with hardly any history alone."""
        is_scarce = np.arange(KINSHIP_COUNT) % SEEN_COUNT <= SCARCE
        return Kin(self.usual * is_scarce, self.hit * is_scarce)

    def of(self, chosen: slice) -> "Kin":
        """Return some of the visitors."""
        return Kin(self.usual[chosen], self.hit[chosen])


class BackOff(Struct, frozen=True, eq=False):
    """What is learnt of one situation.

    Attributes:
        weight: (KINSHIP_COUNT,) of each kinship; zeros where the back-off is not used.
        mass: (2, knots) from minus the sum of the candidates' probabilities to that of all others together.
        strength: the power that was chosen, 0 to 1.
    """

    weight: Float64s
    mass: Float64s
    strength: float


NO_BACK_OFF = BackOff(np.zeros(KINSHIP_COUNT), np.zeros((2, 1)), 0.0)


def count_kin(
    trail_item: Int32s,
    trail_back: Int32s,
    trail_first: Int64s,
    target: Int32s,
    target_first: Int64s,
    kinds: Kinds,
    candidate: Int32s,
) -> Kin:
    """Return how the products that are no candidates stand to visitors; see `kernel.count_kin_of_many_nb`."""
    usual = np.zeros((len(candidate), KINSHIP_COUNT), np.float32)
    hit = np.zeros((len(candidate), KINSHIP_COUNT), np.float32)
    count_kin_of_many_nb(
        np.column_stack((kinds.category[trail_item], kinds.brand[trail_item], trail_back)),
        trail_first,
        target,
        target_first,
        kinds,
        np.ascontiguousarray(candidate),
        np.zeros(len(kinds.category), np.int32),
        usual,
        hit,
    )
    return Kin(usual.astype(np.float64), hit.astype(np.float64))


def fit_back_off(kin: Kin, candidates_rate: Float64s) -> BackOff:
    """Return the weights fitted to most cases, as strongly as foresees best on the others, if any does at all.

    "At all" is by more than two standard errors of the gain in log-likelihood.

    Args:
        kin: of the cases, in random order.
        candidates_rate: (C,) sum of the probabilities of each one's candidates.
    """
    fitting = len(kin.hit) - int(len(kin.hit) * CHOOSING_SHARE)
    if kin.hit[:fitting].sum() < HIT_COUNT_MIN:
        return NO_BACK_OFF
    log_weight = _fit_weights(kin.of(slice(0, fitting)))
    choosing = kin.of(slice(fitting, None))
    best, best_gain = 0.0, 0.0
    for strength in STRENGTHS[1:]:
        gain = choosing.gain(np.exp(strength * log_weight))
        if gain.mean() > max(best_gain, 2.0 * float(gain.std()) / np.sqrt(len(gain))):
            best, best_gain = strength, float(gain.mean())
    if not best:
        return NO_BACK_OFF
    mass = np.array(fit_monotone(-candidates_rate, kin.hit.sum(axis=1)))
    return BackOff(np.exp(best * log_weight), mass, best)


def _fit_weights(kin: Kin) -> Float64s:
    """Return the logarithms of the weights under which what came next is most likely."""
    from scipy.optimize import minimize  # slow to import, for training alone

    hits = kin.hit.sum(axis=1)
    usual, hit, hits = kin.usual[hits > 0], kin.hit[hits > 0].sum(axis=0), hits[hits > 0]
    effect = _effects()

    def loss(size: Float64s) -> tuple[float, Float64s]:
        log_weight = effect @ size
        part = usual * np.exp(log_weight)
        total = np.maximum(part.sum(axis=1), LEAST_SHARE)
        value = float(hits @ np.log(total) - hit @ log_weight) + PRIOR_STRENGTH * float(size @ size)
        return value, ((hits / total) @ part - hit) @ effect + 2.0 * PRIOR_STRENGTH * size

    start = np.zeros(effect.shape[1])
    found = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=[(-LOG_MAX, LOG_MAX)] * len(start))
    return np.asarray(np.clip(effect @ found.x, -LOG_MAX, LOG_MAX))


def _effects() -> Float64s:
    """Return (KINSHIP_COUNT, effects) what a weight is made up of: nearness, brand, what is known of the product.

    Then what is its own, held back more: of kinships hardly seen, the weight follows from the others.
    """
    nearness, rest = np.divmod(np.arange(KINSHIP_COUNT), 2 * SEEN_COUNT)
    is_same_brand, seen = np.divmod(rest, SEEN_COUNT)
    shared = [nearness == one for one in range(NEARNESS_COUNT)] + [seen == one for one in range(SEEN_COUNT)]
    columns = [*shared, is_same_brand == 1]
    return np.column_stack([np.array(columns, np.float64).T, OWN_EFFECT * np.eye(KINSHIP_COUNT)])
