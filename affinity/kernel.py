"""All compiled code of this package: arrays and numbers in, arrays out.

Dimensions: N nodes of all audiences, L predicates, A audiences.
"""

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

Int8s = NDArray[np.int8]
Int64s = NDArray[np.int64]
Uint8s = NDArray[np.uint8]
Uint64s = NDArray[np.uint64]

NODE_LEAF, NODE_NOT, NODE_ALL, NODE_ANY = 0, 1, 2, 3


@njit("void(i1[::1], i8[::1], i8[::1], u1[::1], i8[::1], u8[::1])", cache=True)
def evaluate_nodes_nb(
    kind: Int8s, first: Int64s, child: Int64s, leaf_holds: Uint8s, root: Int64s, bits: Uint64s
) -> None:
    """Say which audiences hold, given which predicates do.

    Args:
        kind: (N,) of each node, children before parents.
        first: (N + 1,) where a node's children begin in `child`.
        child: rows of nodes; of a leaf, the number of its predicate.
        leaf_holds: (L,) 1 where the predicate holds.
        root: (A,) node of each audience.
        bits: (A / 64, rounded up) out, zeros at first: bit a % 64 of word a // 64.
    """
    holds = np.empty(kind.shape[0], np.uint8)
    for node in range(kind.shape[0]):
        begin, end = first[node], first[node + 1]
        if kind[node] == NODE_LEAF:
            holds[node] = leaf_holds[child[begin]]
        elif kind[node] == NODE_NOT:
            holds[node] = 1 - holds[child[begin]]
        elif kind[node] == NODE_ALL:
            value = np.uint8(1)
            for place in range(begin, end):
                value &= holds[child[place]]
            holds[node] = value
        else:
            value = np.uint8(0)
            for place in range(begin, end):
                value |= holds[child[place]]
            holds[node] = value
    for audience in range(root.shape[0]):
        if holds[root[audience]]:
            bits[audience >> 6] |= np.uint64(1) << np.uint64(audience & 63)


def warm() -> None:
    """Run every kernel once, so that none is loaded or compiled on a request."""
    none: Any = np.zeros(0, np.int64)
    evaluate_nodes_nb(
        np.zeros(0, np.int8), np.zeros(1, np.int64), none, np.zeros(0, np.uint8), none, np.zeros(0, np.uint64)
    )
