"""Lists of rows, one for each key, as two arrays; and the few things done with many of them at once."""

from collections.abc import Sequence
from itertools import chain
from typing import NamedTuple

import numpy as np
from scipy.sparse import csr_array

from auction.snapshot import NONE_ROW, Int32s, Int64s


class Lists(NamedTuple):
    """A list of rows for each of n keys: key i has `row[start[i]:start[i + 1]]`."""

    start: Int64s
    row: Int32s


def lists_of(rows_by_key: Sequence[Sequence[int]]) -> Lists:
    """Return the lists of the keys 0, 1 and so on."""
    start = np.zeros(len(rows_by_key) + 1, np.int64)
    np.cumsum([len(rows) for rows in rows_by_key], out=start[1:])
    return Lists(start, np.fromiter(chain.from_iterable(rows_by_key), np.int32, int(start[-1])))


def gather(lists: Lists, keys: Int32s) -> Lists:
    """Return, per item, the list of its key; an empty one where the key is NONE_ROW."""
    has_key = keys != NONE_ROW
    safe = np.where(has_key, keys, 0)
    if len(lists.start) < 2:
        return Lists(np.zeros(len(keys) + 1, np.int64), np.zeros(0, np.int32))
    first = lists.start[safe]
    counts = np.where(has_key, lists.start[safe + 1] - first, 0)
    start = np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)])
    places = np.arange(start[-1]) + np.repeat(first - start[:-1], counts)
    return Lists(start, lists.row[places])


def turn_around(lists: Lists, key_count: int) -> Lists:
    """Return, per key, the items whose list names it, ascending; a counting sort in one pass."""
    shape = (len(lists.start) - 1, key_count)
    turned = csr_array((np.ones(len(lists.row), np.int8), lists.row, lists.start), shape=shape).tocsc()
    return Lists(turned.indptr.astype(np.int64), turned.indices.astype(np.int32))
