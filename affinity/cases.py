"""Moments of past sessions with what came next: what a model is tuned, fitted and measured by."""

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from affinity.kernel import Trail
from affinity.model import BETWEEN_SESSIONS, IN_SESSION
from affinity.sessions import PURCHASE_WEIGHT, TRAIL_LENGTH_MAX, WEEK_MS, Sessions

Int32s = NDArray[np.int32]
Int64s = NDArray[np.int64]

SPLIT_SEED = 0


class Cases(Struct, frozen=True, eq=False):
    """Moments of visitors: what each did before, and what came next.

    Attributes:
        trail: of all of them, one after another.
        trail_first: (C + 1,) where each one's begins.
        target: items that came next; several where they were bought together.
        target_first: (C + 1,) where each one's begin.
    """

    trail: Trail
    trail_first: Int64s
    target: Int32s
    target_first: Int64s

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self.trail_first) - 1

    def first(self, count: int) -> "Cases":
        """Return the first of the cases, at most so many."""
        return self._between(0, min(count, len(self)))

    def after(self, count: int) -> "Cases":
        """Return the cases after the first so many."""
        return self._between(min(count, len(self)), len(self))

    def _between(self, begin: int, end: int) -> "Cases":
        trail = self.trail
        of_trail = slice(self.trail_first[begin], self.trail_first[end])
        of_target = slice(self.target_first[begin], self.target_first[end])
        return Cases(
            Trail(trail.item[of_trail], trail.weight[of_trail], trail.age[of_trail], trail.back[of_trail]),
            self.trail_first[begin : end + 1] - self.trail_first[begin],
            self.target[of_target],
            self.target_first[begin : end + 1] - self.target_first[begin],
        )


def gather_cases(sessions: Sessions, cut: int, count_max: int) -> tuple[Cases, Cases]:
    """Return cases from the sessions from `cut` on, in random order: within a session, and between two.

    *Within*: the next item is to be foreseen from what came before. *Between*: who begins anew, having bought or with
    an earlier session behind them, and what they then buy together, or else look at first. Items bought together are
    not foreseen from one another, but where there is nothing else.

    Args:
        sessions: in the order of time.
        cut: number of the first session to take cases from.
        count_max: most cases of each kind.
    """
    history = _Histories(sessions)
    length = np.diff(sessions.first)[cut:]
    session = np.repeat(np.arange(cut, len(sessions)), length)
    event = np.arange(sessions.first[cut], sessions.first[-1])
    is_first = event == sessions.first[session]
    is_bought = sessions.weight[event] >= PURCHASE_WEIGHT
    follows_purchase = ~is_first & np.append(False, is_bought[:-1])
    has_past = ~is_first | (history.earlier_count[session] > 0)
    is_between = has_past & (is_first | follows_purchase) & ~(follows_purchase & is_bought)
    is_within = ~is_first & ~follows_purchase
    if not is_between.any() and not is_within.any():
        is_within = ~is_first
    chance = np.random.default_rng(SPLIT_SEED)
    chosen = [_choose(np.flatnonzero(one), count_max, chance) for one in (is_within, is_between)]
    within, between = (history.cases(session[one], event[one], is_bought) for one in chosen)
    assert (IN_SESSION, BETWEEN_SESSIONS) == (0, 1)
    return within, between


def _choose(rows: Int64s, count_max: int, chance: np.random.Generator) -> Int64s:
    return chance.permutation(rows)[:count_max]


class _Histories:
    """Events of all sessions, visitor after visitor, each in the order of time."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions
        count = len(sessions)
        order = np.argsort(sessions.visitor, kind="stable")
        length = np.diff(sessions.first)
        self._event_session = np.repeat(order, length[order])
        begin = np.cumsum(length[order]) - length[order]
        self._event = np.repeat(sessions.first[:-1][order] - begin, length[order]) + np.arange(len(sessions.item))
        self._begin_of = np.zeros(count, np.int64)
        self._begin_of[order] = begin
        is_new = np.diff(sessions.visitor[order], prepend=-1) != 0
        group_first = np.flatnonzero(is_new)
        group = np.cumsum(is_new) - 1
        self.earlier_count = np.zeros(count, np.int64)
        self.earlier_count[order] = np.arange(count) - group_first[group] if count else 0
        self._visitor_begin = np.zeros(count, np.int64)
        self._visitor_begin[order] = begin[group_first[group]] if count else 0

    def cases(self, session: Int64s, event: Int64s, is_bought: NDArray[np.bool_]) -> Cases:
        """Return the cases of these events, each to be foreseen with what was bought together with it."""
        sessions = self._sessions
        end = self._begin_of[session] + event - sessions.first[session]
        begin = np.maximum(self._visitor_begin[session], end - TRAIL_LENGTH_MAX)
        places, trail_first = _spread(begin, end)
        of = self._event_session[places]
        last = self._event_session[np.maximum(end - 1, 0)]
        case = np.repeat(np.arange(len(session)), end - begin)
        age = (sessions.ended_at_ms[last][case] - sessions.ended_at_ms[of]) / WEEK_MS
        back = self.earlier_count[last][case] - self.earlier_count[of]
        taken = self._event[places]
        trail = Trail(sessions.item[taken], sessions.weight[taken], age.astype(np.float32), back.astype(np.int32))
        first_event = len(sessions.item) - len(is_bought)
        run_end = np.append(np.flatnonzero(~is_bought), len(is_bought)) + first_event  # events that end an order
        stop = np.minimum(run_end[np.searchsorted(run_end, event)], sessions.first[session + 1])
        targets, target_first = _spread(event, np.maximum(stop, event + 1))
        return Cases(trail, trail_first, sessions.item[targets], target_first)


def _spread(begin: Int64s, end: Int64s) -> tuple[Int64s, Int64s]:
    """Return every place from each begin to before its end, and where each one's begin among them."""
    length = end - begin
    first = np.zeros(len(begin) + 1, np.int64)
    first[1:] = np.cumsum(length)
    return np.repeat(begin - first[:-1], length) + np.arange(first[-1]), first
