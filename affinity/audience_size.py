"""How many visitors an audience has: what is too small is neither targeted nor counted out.

Counting is spread out between requests. An audience that was never counted is not targeted until it was.
"""

import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from affinity.audience import Audience
from affinity.computed import CustomerScale
from affinity.record import VisitorRecord
from affinity.targets import Bits, Targets, compile_targets, frozen, set_bits

PAUSE_PER_ROUND = 100  # after a round, so many times as long as it took
PAUSE_S_MIN = 0.5
ROUNDED_TO = 10  # numbers of visitors, down; over 1,000 to two digits

_encode = msgspec.json.Encoder(order="sorted").encode


class AudienceSizes:
    """Which audiences of the current targets are large enough, counted round after round.

    Args:
        size_min: least number of visitors.
        each_person: yields a record of everybody there is, once.
        clock_s: seconds of any beginning, that never go back.
    """

    def __init__(
        self,
        size_min: int,
        each_person: Callable[[], Iterator[VisitorRecord]],
        clock_s: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._size_min = size_min
        self._each_person = each_person
        self._clock_s = clock_s
        self._targets: Targets | None = None
        self._targetable: Bits = frozen(np.zeros(0, np.uint64))
        self._keys: list[bytes] = []
        self._is_large = np.zeros(0, bool)  # (A,) in the latest round, or already in this one
        self._count = np.zeros(0, np.int64)  # (A,) so far in this round
        self._is_whole = np.zeros(0, bool)  # (A,) since this round's beginning
        self._persons: Iterator[VisitorRecord] | None = None  # yet to be looked at in this round
        self._round_s = 0.0
        self._rests_until_s = 0.0

    def of(self, targets: Targets) -> Bits:
        """Return the bits of the audiences that may be targeted; other targets than before are counted from now on."""
        if targets is not self._targets:
            self._take(targets)
        return self._targetable

    def count(self, s_max: float, scale: CustomerScale, now_ms: int) -> int:
        """Look at more persons for about so many seconds; return how many it were, 0 where there is nothing to do now.

        An audience is large as soon as it was found to be, and small only after a whole round. One that comes in the
        middle of a round is looked at from there on, and from the beginning in the next.
        """
        targets, began_s = self._targets, self._clock_s()
        if targets is None or self._size_min <= 1 or not targets.audiences:
            return 0
        if self._persons is None:
            if began_s < self._rests_until_s:
                return 0
            self._persons, self._round_s = self._each_person(), 0.0
            self._count[:], self._is_whole[:] = 0, True
        looked_at, is_over, taken_s = 0, True, 0.0
        for record in self._persons:
            bits, _ = targets.audience_bits(record, scale, now_ms)
            self._count += np.unpackbits(bits.view(np.uint8), bitorder="little", count=len(self._count))
            looked_at += 1
            is_over = int(self._count.min()) >= self._size_min
            taken_s = self._clock_s() - began_s
            if is_over or taken_s >= s_max:
                break
        else:
            is_over = True
        self._learn(targets, is_over=is_over)
        self._round_s += taken_s
        if is_over:
            self._persons = None
            is_decided = bool((self._is_whole | self._is_large).all())
            self._rests_until_s = (
                0.0 if not is_decided else self._clock_s() + max(PAUSE_S_MIN, PAUSE_PER_ROUND * self._round_s)
            )
            if not is_decided and not looked_at:
                return self.count(s_max, scale, now_ms)
        return looked_at

    def _take(self, targets: Targets) -> None:
        before = {key: row for row, key in enumerate(self._keys)}
        self._targets = targets
        self._keys = [_encode(audience) for audience in targets.audiences]
        row_before = np.array([before.get(key, -1) for key in self._keys], np.int64)
        is_known = row_before >= 0

        def carried(of_before: NDArray[Any], fill: object) -> NDArray[Any]:
            of_now = np.full(len(self._keys), fill, of_before.dtype)
            of_now[is_known] = of_before[row_before[is_known]]
            return of_now

        self._is_large = carried(self._is_large, self._size_min <= 1)
        self._count, self._is_whole = carried(self._count, 0), carried(self._is_whole, False)
        if not is_known.all():
            self._rests_until_s = 0.0
        self._show(targets)

    def _learn(self, targets: Targets, *, is_over: bool) -> None:
        is_large = self._count >= self._size_min
        is_large |= self._is_large & ~(self._is_whole & is_over)
        if not np.array_equal(is_large, self._is_large):
            self._is_large = is_large
            self._show(targets)

    def _show(self, targets: Targets) -> None:
        rows = np.flatnonzero(self._is_large).tolist()
        self._targetable = frozen(set_bits(rows, targets.audience_word_count))


def count_members(
    audience: Audience,
    records: Iterable[VisitorRecord],
    scale: CustomerScale,
    now_ms: int,
    size_min: int,
    persons_per_record: float = 1.0,
) -> int | None:
    """Return about how many are in an audience; None under the least number.

    No number tells of one person, neither by itself nor beside another: a part of the tree that holds for fewer than
    the least number counts as holding for nobody, so that nobody can be singled out and taken away; and what is left is
    rounded down.

    Args:
        audience: the tree.
        records: everybody, or a sample.
        scale: how the shop's customers compare.
        now_ms: the moment counted for.
        size_min: the least number.
        persons_per_record: how many one of the sample stands for.
    """
    targets = compile_targets([audience], [])
    holds = [targets.predicates_of(record, scale, now_ms) for record in records]
    if not holds:
        return None
    member_count = round(targets.count_root(np.array(holds, bool), size_min / persons_per_record) * persons_per_record)
    return _rounded_down(member_count, min(ROUNDED_TO, size_min)) if member_count >= size_min else None


def _rounded_down(count: int, step_min: int) -> int:
    """Round a number of visitors down to multiples of a step, from 1,000 on to two digits."""
    step = max(step_min, int(10 ** (len(str(count)) - 2)), 1)
    return count // step * step
