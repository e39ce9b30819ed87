"""Pairs bought together: right by hand, and none where there is nothing but chance."""

from math import comb

import numpy as np
import pytest

from affinity.cross_sell import ORDER_SIZE_MAX, find_pairs


def lines_of(orders: list[list[int]]) -> tuple[np.ndarray, np.ndarray]:
    pairs = [(number, product) for number, products in enumerate(orders) for product in products]
    order, product = zip(*pairs, strict=True)
    return np.array(order), np.array(product)


def test_figures_are_those_of_a_calculation_by_hand() -> None:
    # 100 orders: bread (0) in 20, butter (1) in 10, both in 8; by chance both would be in 2.
    orders = [[0, 1]] * 8 + [[0]] * 12 + [[1]] * 2 + [[2]] * 78
    found = find_pairs(*lines_of(orders), 0.05)
    assert found.product.tolist() == [[0, 1]]
    assert found.orders.tolist() == [[20, 10]]
    assert (found.together.tolist(), found.order_count) == ([8], 100)
    assert (found.lift[0], found.by_chance[0]) == (4.0, 2.0)
    chance = sum(comb(10, k) * 0.2**k * 0.8 ** (10 - k) for k in range(8, 11))
    assert found.p_value[0] == pytest.approx(3 * chance)  # three products, three pairs there could be
    exact = sum(comb(20, k) * comb(80, 10 - k) for k in range(8, 11)) / comb(100, 10)
    assert chance > exact  # it finds no more than Fisher's own test would


def test_a_product_twice_in_an_order_counts_once() -> None:
    orders = [[0, 1]] * 8 + [[0]] * 12 + [[1]] * 2 + [[2]] * 78
    once, twice = find_pairs(*lines_of(orders), 0.05), find_pairs(*lines_of([one + one for one in orders]), 0.05)
    assert once.together.tolist() == twice.together.tolist()
    assert once.orders.tolist() == twice.orders.tolist()


def test_where_nothing_goes_together_hardly_anything_is_found() -> None:
    rng = np.random.default_rng(5)
    found = 0
    for _ in range(30):
        bought = rng.random((1_500, 40)) < rng.uniform(0.01, 0.2, 40)
        order, product = np.nonzero(bought)
        found += len(find_pairs(order, product, 0.05).together) > 0
    assert found <= 5  # in one of twenty anything at all; five of thirty is beyond three standard errors


def test_a_planted_pair_is_found_first_and_what_is_bought_less_together_is_not() -> None:
    rng = np.random.default_rng(6)
    bought = rng.random((3_000, 40)) < 0.08
    bought[:, 7] = np.where(rng.random(3_000) < 0.5, bought[:, 3], bought[:, 7])
    bought[bought[:, 11], 12] = False  # one instead of the other
    order, product = np.nonzero(bought)
    found = find_pairs(order, product, 0.05)
    assert set(found.product[0].tolist()) == {3, 7}
    assert {11, 12} not in [set(pair) for pair in found.product.tolist()]


def test_a_traders_order_says_nothing() -> None:
    huge = [list(range(ORDER_SIZE_MAX + 1))] * 20 + [[200]] * 50
    assert len(find_pairs(*lines_of(huge), 0.05).together) == 0
    assert find_pairs(*lines_of(huge), 0.05).order_count == 50


def test_no_orders_no_pairs() -> None:
    nothing = np.zeros(0, np.int64)
    assert len(find_pairs(nothing, nothing, 0.05).together) == 0
