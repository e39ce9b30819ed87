"""Which products the product targets of navigation patterns are about, a bit for each distinct target and product.

Targets are answered where the catalogue is at hand, and handed here as bits: a step asks for one of them, and an event
mentions those its product's row has set. Equal targets are one, however many patterns name them.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from affinity.errors import PatternRefused
from affinity.pattern import NavigationPattern, product_targets_of
from affinity.product_target import Mask, Target, target_key

Bytes = NDArray[np.uint8]
NO_PRODUCT = -1  # row of what the catalogue does not have
SAMPLE_SIZE = 512  # products looked at to tell how wide a target is
_BLOCK = 64  # bytes of each product that are packed at a time


class ProductSets:
    """The products each target is about. T targets, P products.

    Args:
        targets: distinct ones; a target's number is its place.
        row_of: product id to its row.
        bits: (P, ⌈T/8⌉) bit t % 8 of byte t // 8: the product is one of target t's. See `pack_masks`.
    """

    def __init__(self, targets: Sequence[Target], row_of: Mapping[str, int], bits: Bytes) -> None:
        self._number_of = {target_key(target): number for number, target in enumerate(targets)}
        self._row_of = row_of
        self._bits = bits
        self._width = bits.shape[1]
        self._raw = np.ascontiguousarray(bits).reshape(-1).data

    def __len__(self) -> int:
        """Count the targets."""
        return len(self._number_of)

    def number_of(self, target: Target) -> int:
        """Return the target's number.

        Raises:
            KeyError: it is not among them.
        """
        return self._number_of[target_key(target)]

    def has(self, target: Target) -> bool:
        """Say whether the target is among them."""
        return target_key(target) in self._number_of

    def row_of(self, product_id: str | None) -> int:
        """Return the product's row, NO_PRODUCT where the catalogue does not have it."""
        return NO_PRODUCT if product_id is None else self._row_of.get(product_id, NO_PRODUCT)

    def is_about(self, number: int, row: int) -> bool:
        """Say whether a target is about the product of a row; none is about NO_PRODUCT."""
        return row >= 0 and bool(self._raw[row * self._width + (number >> 3)] >> (number & 7) & 1)

    def numbers(self, row: int, among: int) -> Iterator[int]:
        """Yield the numbers of the targets that are about the product of a row, ascending.

        Args:
            row: the product's, not NO_PRODUCT.
            among: bits of the targets that are asked for.
        """
        first = row * self._width
        left = int.from_bytes(self._raw[first : first + self._width], "little") & among
        while left:
            lowest = left & -left
            yield lowest.bit_length() - 1
            left ^= lowest

    def shares(self) -> list[float]:
        """Return about which share of the products each target is about."""
        sample = self._bits[:: max(1, len(self._bits) // SAMPLE_SIZE)]
        if not len(sample):
            return [0.0] * len(self)
        shares: list[float] = np.unpackbits(sample, axis=1, count=len(self), bitorder="little").mean(axis=0).tolist()
        return shares

    def has_same_targets(self, other: "ProductSets") -> bool:
        """Say whether the other has the same targets under the same numbers."""
        return self._number_of == other._number_of

    def says_the_same(self, other: "ProductSets") -> bool:
        """Say whether the other has the same targets, and each is about the same products."""
        if not self.has_same_targets(other):
            return False
        if not self._number_of:
            return True
        if not np.array_equal(self._bits, other._bits):
            return False
        # Row by row, so that other threads may go on meanwhile: one comparison of two large mappings would keep them.
        return all(other._row_of.get(product_id) == row for product_id, row in self._row_of.items())


def pack_masks(masks: Iterator[Mask], count: int, product_count: int) -> Bytes:
    """Return (P, ⌈T/8⌉) the bits of so many masks, as `ProductSets` reads them."""
    width = (count + 7) // 8
    bits = np.zeros((product_count, width), np.uint8)
    # Some bytes of each product at a time: one by one, each would be a miss of the cache.
    for first in range(0, width, _BLOCK):
        block = np.zeros((min(_BLOCK, width - first), product_count), np.uint8)
        for byte in block:
            for bit, mask in enumerate(islice(masks, 8)):
                byte |= mask.view(np.uint8) << np.uint8(bit)
        bits[:, first : first + _BLOCK] = block.T
    return bits


def check_room(pattern: NavigationPattern, live: ProductSets, count_max: int, pointer: str) -> None:
    """Check that there is room for the pattern's product targets among those of live patterns.

    Args:
        pattern: one that is to be live.
        live: the targets there are; those among them take no more room.
        count_max: targets there may be.
        pointer: JSON pointer of the pattern in the request.

    Raises:
        PatternRefused: `pattern_targets_full`.
    """
    new_count = sum(not live.has(target) for target in product_targets_of([pattern]))
    if new_count and len(live) + new_count > count_max:
        message = (
            f"the patterns of all bids may name {count_max} different product targets together; there are {len(live)}, "
            f"and this one adds {new_count}"
        )
        raise PatternRefused(message, pointer, code="pattern_targets_full", status=409)


NO_SETS = ProductSets([], {}, np.zeros((0, 0), np.uint8))
