"""Which products are bought together more often than chance would have it.

Source: lift as in Brin, Motwani, Ullman and Tsur, "Dynamic itemset counting and implication rules for market basket
data", SIGMOD 1997. The test is Fisher's exact one, one-sided, with the binomial tail for the hypergeometric, which it
bounds from above beyond the mean (Hoeffding, "Probability inequalities for sums of bounded random variables", JASA 58,
1963): it finds no more, and takes one call for all pairs.
"""

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from affinity.significance import adjust
from affinity.tally import distinct

Int64s = NDArray[np.int64]
Float64s = NDArray[np.float64]

PRODUCT_ORDER_COUNT_MIN = 10  # orders a product must be in
TOGETHER_COUNT_MIN = 5  # orders a pair must be in
PRODUCT_COUNT_MAX = 5_000  # those in most orders; every pair of them is a test
ORDER_SIZE_MAX = 100  # products; larger orders are a trader's, and say little of what goes with what


class Pairs(Struct, frozen=True, eq=False):
    """N pairs, those first that are bought together most often beyond chance.

    Attributes:
        product: (N, 2) rows of the two, the one in more orders first.
        orders: (N, 2) orders each is in.
        together: (N,) orders both are in: the support.
        lift: (N,) the same over what it would be by chance.
        p_value: (N,) adjusted for every pair there could be.
        order_count: orders in all.
    """

    product: Int64s
    orders: Int64s
    together: Int64s
    lift: Float64s
    p_value: Float64s
    order_count: int

    @property
    def by_chance(self) -> Float64s:
        """Return (N,) the orders both would be in if one had nothing to do with the other."""
        return self.orders[:, 0] * self.orders[:, 1] / max(self.order_count, 1)


def find_pairs(order: Int64s, product: Int64s, level: float) -> Pairs:
    """Return the pairs bought together more often than by chance, at a false discovery rate of `level`.

    Args:
        order: (E,) number of each line's order.
        product: (E,) row of its product, from 0.
        level: share of the pairs that may be chance.
    """
    from scipy.sparse import coo_matrix, triu  # heavy, and for reports alone

    if len(order):
        lines = np.stack(distinct(order, product, int(product.max()) + 1), 1)
        size = np.bincount(lines[:, 0])
        lines = lines[size[lines[:, 0]] <= ORDER_SIZE_MAX]
    else:
        lines = np.zeros((0, 2), np.int64)
    _, order_row = np.unique(lines[:, 0], return_inverse=True)
    order_count = int(order_row.max(initial=-1)) + 1
    in_orders = np.bincount(lines[:, 1], minlength=1)
    often = np.argsort(-in_orders, kind="stable")[:PRODUCT_COUNT_MAX]
    often = often[in_orders[often] >= PRODUCT_ORDER_COUNT_MIN]
    place = np.full(len(in_orders), -1, np.int64)
    place[often] = np.arange(len(often))
    kept = place[lines[:, 1]] >= 0
    shape = order_count, len(often)
    ones = np.ones(int(kept.sum()), np.int32)
    bought = coo_matrix((ones, (order_row[kept], place[lines[kept, 1]])), shape).tocsr()
    both = triu(bought.T @ bought, k=1, format="coo")
    is_enough = both.data >= TOGETHER_COUNT_MIN
    pair = np.stack([often[both.row[is_enough]], often[both.col[is_enough]]], 1).astype(np.int64)
    return _judge(pair, in_orders[pair], both.data[is_enough].astype(np.int64), order_count, len(often), level)


def _judge(pair: Int64s, orders: Int64s, together: Int64s, order_count: int, product_count: int, level: float) -> Pairs:
    """Return the significant ones of pairs, of all that `product_count` products can form."""
    from scipy.special import bdtrc

    by_chance = orders[:, 0] * orders[:, 1] / max(order_count, 1)
    rarer, more = orders.min(1), orders.max(1)
    p_value = bdtrc(together - 1.0, rarer, more / max(order_count, 1))
    adjusted = adjust(p_value, product_count * (product_count - 1) // 2)
    beyond = together - by_chance
    best = np.lexsort((pair[:, 1], pair[:, 0], -beyond))
    best = best[(adjusted[best] < level) & (beyond[best] > 0)]
    lift = together[best] / by_chance[best]
    return Pairs(pair[best], orders[best], together[best], lift, adjusted[best], order_count)
