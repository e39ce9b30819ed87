"""Chance that is the same on every machine: whole-number draws counted out from a seed.

SplitMix64 on 64-bit integers only. Neither numpy's distributions nor Python's hash take part: their streams may
change between versions, and a logarithm may differ in its last bit between processors.

Source: Steele, Lea, Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014, figure 17 (mix64variant13).
"""

from bisect import bisect_right
from collections.abc import Sequence
from hashlib import blake2b
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Int64s: TypeAlias = npt.NDArray[np.int64]
UInt64s: TypeAlias = npt.NDArray[np.uint64]

PPM = 1_000_000
_MASK = (1 << 64) - 1
_GOLDEN = 0x9E3779B97F4A7C15
_MIX_1 = 0xBF58476D1CE4E5B9
_MIX_2 = 0x94D049BB133111EB


def key_of(*parts: int | str) -> int:
    """Return a 64-bit key for a stream, from numbers and names; another part gives an unrelated stream."""
    text = "\x1f".join(str(part) for part in parts)
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "big")


class Stream:
    """Draws one after another; two streams of the same key give the same draws."""

    __slots__ = ("_state",)

    def __init__(self, key: int) -> None:
        self._state = key & _MASK

    def next(self) -> int:
        """Return the next 64 random bits."""
        self._state = state = (self._state + _GOLDEN) & _MASK
        state = ((state ^ (state >> 30)) * _MIX_1) & _MASK
        state = ((state ^ (state >> 27)) * _MIX_2) & _MASK
        return state ^ (state >> 31)

    def below(self, limit: int) -> int:
        """Return a whole number from 0 to `limit` - 1, each equally likely to within 2^-32 for small limits."""
        return (self.next() * limit) >> 64

    def happens(self, chance_ppm: int) -> bool:
        """Say yes so many times in a million."""
        return self.below(PPM) < chance_ppm

    def choose(self, cumulated_weights: Sequence[int]) -> int:
        """Return a row with a chance proportional to its weight, given the running totals of whole weights."""
        return bisect_right(cumulated_weights, self.below(cumulated_weights[-1]))


def bits(key: int, count: int) -> UInt64s:
    """Return the first `count` draws of `Stream(key)` at once."""
    steps = np.arange(1, count + 1, dtype=np.uint64)
    state = np.uint64(key & _MASK) + steps * np.uint64(_GOLDEN)
    state = (state ^ (state >> np.uint64(30))) * np.uint64(_MIX_1)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(_MIX_2)
    return state ^ (state >> np.uint64(31))


def whole_numbers(key: int, count: int, low: int, high: int) -> Int64s:
    """Return `count` whole numbers from `low` to `high`, both included; the span must stay below 2^32."""
    span = high - low + 1
    if not 1 <= span < 1 << 32:
        raise ValueError(f"high - low must be in 0..2^32-2, was {span - 1}")
    drawn = ((bits(key, count) >> np.uint64(32)) * np.uint64(span)) >> np.uint64(32)
    return drawn.astype(np.int64) + low
