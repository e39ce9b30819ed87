"""How many visitors an audience has: what is too small is neither targeted nor counted out.

Counting is spread out between requests. An audience that was never counted is not targeted until it was.
"""

import time
from collections.abc import Callable, Iterable, Iterator

import msgspec
import numpy as np

from affinity.audience import Audience
from affinity.computed import CustomerScale
from affinity.record import VisitorRecord
from affinity.targets import Bits, Targets, frozen, set_bits

PAUSE_PER_ROUND = 20  # after a round, so many times as long as it took
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
        self._is_large: dict[bytes, bool] = {}
        self._targets: Targets | None = None
        self._targetable: Bits = frozen(np.zeros(0, np.uint64))
        self._keys: list[bytes] = []
        self._persons: Iterator[VisitorRecord] | None = None
        self._count = np.zeros(0, np.int64)
        self._round_s = 0.0
        self._rests_until_s = 0.0

    def of(self, targets: Targets) -> Bits:
        """Return the bits of the audiences that may be targeted; other targets than before are counted from now on."""
        if targets is not self._targets:
            self._take(targets)
        return self._targetable

    def count(self, person_count_max: int, scale: CustomerScale, now_ms: int) -> int:
        """Look at up to so many more persons; return how many were looked at, 0 where there is nothing to do now."""
        targets = self._targets
        if targets is None or self._size_min <= 1 or not targets.audiences:
            return 0
        began_s = self._clock_s()
        if self._persons is None:
            if began_s < self._rests_until_s:
                return 0
            self._persons, self._count, self._round_s = self._each_person(), np.zeros(len(self._keys), np.int64), 0.0
        looked_at = 0
        for record in self._persons:
            bits, _ = targets.audience_bits(record, scale, now_ms)
            self._count += np.unpackbits(bits.view(np.uint8), bitorder="little", count=len(self._keys))
            looked_at += 1
            if looked_at == person_count_max:
                break
        self._round_s += self._clock_s() - began_s
        is_over = looked_at < person_count_max or bool((self._count >= self._size_min).all())
        self._learn(targets, is_over=is_over)
        if is_over:
            self._persons = None
            self._rests_until_s = self._clock_s() + max(PAUSE_S_MIN, PAUSE_PER_ROUND * self._round_s)
        return looked_at

    def _take(self, targets: Targets) -> None:
        self._targets = targets
        self._keys = [_encode(audience) for audience in targets.audiences]
        self._is_large = {key: self._is_large[key] for key in self._keys if key in self._is_large}
        self._persons, self._rests_until_s = None, 0.0
        self._show(targets)

    def _learn(self, targets: Targets, *, is_over: bool) -> None:
        """An audience is large as soon as it was found to be, and small only after a whole round."""
        changed = False
        for key, count in zip(self._keys, self._count.tolist(), strict=True):
            is_large = count >= self._size_min
            if (is_large or is_over) and self._is_large.get(key) is not is_large:
                self._is_large[key] = is_large
                changed = True
        if changed:
            self._show(targets)

    def _show(self, targets: Targets) -> None:
        rows = [row for row, key in enumerate(self._keys) if self._size_min <= 1 or self._is_large.get(key, False)]
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
    targets = Targets([audience], [])
    holds = [targets.predicates_of(record, scale, now_ms) for record in records]
    if not holds:
        return None
    member_count = round(targets.count_root(np.array(holds, bool), size_min / persons_per_record) * persons_per_record)
    return _rounded_down(member_count, min(ROUNDED_TO, size_min)) if member_count >= size_min else None


def _rounded_down(count: int, step_min: int) -> int:
    """Round a number of visitors down to multiples of a step, from 1,000 on to two digits."""
    step = max(step_min, int(10 ** (len(str(count)) - 2)), 1)
    return count // step * step
