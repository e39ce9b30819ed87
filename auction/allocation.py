"""Fill a page as its placements ask: greedily, or for the most worth where its caps allow and there is time.

The greedy page is decided first in any case, and stays where the better one cannot be had. Which of the two it became
belongs to the answer: with it the same page can be decided again, without a clock.
"""

import numpy as np

from auction.kernel import (
    EXACT_DONE,
    EXACT_STEPS_MAX,
    CandidateArrays,
    Int64s,
    OutcomeArrays,
    PageArrays,
    allocate_exactly_nb,
    fill_page_nb,
)
from auction.placement import Allocation


def new_outcome(slot_count: int) -> OutcomeArrays:
    """Return arrays for the outcome of a page with so many slots."""
    return outcome_in(np.empty((4 + slot_count, slot_count), np.int64))


def outcome_in(block: Int64s) -> OutcomeArrays:
    """Return arrays for an outcome that lie in one block, (4 + S, S), which a receipt copies at once."""
    return OutcomeArrays(block[0], block[1], block[2], block[4:], block[3])


def make_exact(
    candidates: CandidateArrays, candidate_count: int, page: PageArrays, arrays: OutcomeArrays, steps_max: int
) -> Allocation:
    """Turn a greedily filled page into the one worth most; say which it is then.

    Args:
        candidates: as the kernel says, all that could matter.
        candidate_count: how many.
        page: as the kernel says.
        arrays: the greedy page; written over where a better one was found, or the same one proved to be the best.
        steps_max: pairs to look at before leaving it as it is.
    """
    made = allocate_exactly_nb(candidates, candidate_count, page, steps_max, arrays)
    return "exact" if made == EXACT_DONE else "greedy"


def fill_again(
    allocation: Allocation, candidates: CandidateArrays, candidate_count: int, page: PageArrays, arrays: OutcomeArrays
) -> None:
    """Decide a page as it was decided before; where something was changed so that it cannot be, greedily."""
    nothing = np.zeros(0, np.int64)
    fill_page_nb(candidates, candidate_count, page, nothing, nothing, nothing, nothing, arrays)
    if allocation == "exact":
        make_exact(candidates, candidate_count, page, arrays, EXACT_STEPS_MAX)
