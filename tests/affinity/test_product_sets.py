"""Which products targets are about, as bits: what they say, and how little memory they take."""

import random
import tracemalloc
from collections.abc import Iterator

import numpy as np
import pytest

from affinity.errors import PatternRefused
from affinity.matching import Happening, PatternIndex
from affinity.navigation import Action
from affinity.pattern import NavigationPattern, PatternStep
from affinity.product_sets import NO_PRODUCT, ProductSets, check_room, pack_masks
from affinity.product_target import Mask, Target


def sets_of(masks: list[Mask]) -> ProductSets:
    product_count = len(masks[0])
    targets = [Target(field="number", equals=number) for number in range(len(masks))]
    row_of = {f"p{row}": row for row in range(product_count)}
    return ProductSets(targets, row_of, pack_masks(iter(masks), len(masks), product_count))


@pytest.mark.parametrize("count", [1, 7, 8, 9, 64, 127, 128, 129, 1030])
def test_it_says_of_every_target_and_product_what_the_masks_said(count: int) -> None:
    chance = np.random.default_rng(count)
    masks = list(chance.random((count, 20)) < chance.random((count, 1)))
    sets = sets_of(masks)
    asked = random.Random(count).getrandbits(count)
    for row in range(20):
        of_row = [number for number in range(count) if masks[number][row]]
        assert [number for number in range(count) if sets.is_about(number, row)] == of_row
        assert list(sets.numbers(row, asked)) == [number for number in of_row if asked >> number & 1]
    assert sets.shares() == pytest.approx([float(mask.mean()) for mask in masks])
    assert (sets.row_of("p7"), sets.row_of("gone"), sets.row_of(None)) == (7, NO_PRODUCT, NO_PRODUCT)
    assert not any(sets.is_about(number, NO_PRODUCT) for number in range(count))


def test_what_says_the_same_has_the_same_targets_about_the_same_products() -> None:
    some = [np.array([True, False]), np.array([False, True])]
    assert sets_of(some).says_the_same(sets_of(some))
    assert not sets_of(some).says_the_same(sets_of(some[::-1]))
    assert not sets_of(some).says_the_same(sets_of(some[:1]))
    targets, bits = [Target(field="number", equals=0)], np.array([[1], [0]], np.uint8)
    first, second = (ProductSets(targets, {names[0]: 0, names[1]: 1}, bits) for names in ("ab", "ac"))
    assert not first.says_the_same(second), "its bits are of another product"
    assert ProductSets([], {"a": 0}, bits[:, :0]).says_the_same(ProductSets([], {"b": 0}, bits[:, :0]))


def test_a_thousand_patterns_of_one_wide_target_share_what_it_is_about() -> None:
    """Half of 50,000 products each: listed per pattern, that were 25 million entries."""
    product_count, pattern_count = 50_000, 1_000
    target = Target(field="is_summer", equals=True)
    row_of = {f"p{row}": row for row in range(product_count)}
    half = np.arange(product_count) % 2 == 0
    steps = [PatternStep(action=Action.VIEW_ITEM, product_target=target)]
    patterns = [NavigationPattern(within=60 + row, steps=steps) for row in range(pattern_count)]
    tracemalloc.start()
    bits = pack_masks(iter([half]), 1, product_count)
    index = PatternIndex(patterns, ProductSets([target], row_of, bits))
    taken, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert bits.nbytes == product_count
    assert taken < 2_000_000, "a byte a product, and less than 2 KB a pattern"
    assert len(index.find(Happening(0, Action.VIEW_ITEM, "p4"), [], pattern_count)) == pattern_count
    assert index.find(Happening(0, Action.VIEW_ITEM, "p5"), [], pattern_count) == []


def test_many_targets_take_a_bit_a_product_each_even_while_they_are_packed() -> None:
    product_count, target_count = 5_000, 4_000

    def masks() -> Iterator[Mask]:
        for number in range(target_count):
            yield np.arange(product_count) % (number + 2) != 0

    tracemalloc.start()
    bits = pack_masks(masks(), target_count, product_count)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert bits.nbytes == product_count * target_count // 8
    assert most < 4 * bits.nbytes, "all masks at once would take eight times that"


def test_there_is_room_for_so_many_targets_of_live_patterns() -> None:
    live = sets_of([np.array([True])] * 3)

    def asking(*numbers: int) -> NavigationPattern:
        steps = [
            PatternStep(action=Action.VIEW_ITEM, product_target=Target(field="number", equals=one)) for one in numbers
        ]
        return NavigationPattern(within=60, steps=steps or [PatternStep(action=Action.VIEW_ITEM)])

    check_room(asking(7), live, 4, "/p")
    check_room(asking(0, 1, 2), live, 2, "/p")  # those that are live take no more room
    check_room(asking(), live, 2, "/p")
    for full in (asking(7, 8), asking(0, 1, 7, 8)):
        with pytest.raises(PatternRefused) as refused:
            check_room(full, live, 4, "/p")
        assert (refused.value.code, refused.value.status, refused.value.pointer) == ("pattern_targets_full", 409, "/p")
        assert str(refused.value) == (
            "the patterns of all bids may name 4 different product targets together; there are 3, and this one adds 2"
        )
