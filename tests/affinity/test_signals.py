"""Merchandising signals in rows of a snapshot: best-sellers in order, complements by how often beyond chance."""

from typing import Any

from affinity.signals import COMPLEMENT_COUNT_MAX, NO_SIGNALS, Signals

ROW_OF = {name: row for row, name in enumerate(["a", "b", "c", "d", "e"])}


def signals(**changes: Any) -> Signals:
    fields: dict[str, Any] = {
        "computed_at_ms": 0,
        "from_ms": 0,
        "until_ms": 0,
        "best_sellers": [],
        "category_trends": {},
    }
    return Signals(**fields | changes)


def test_best_sellers_keep_their_order_without_those_that_are_gone() -> None:
    bound = signals(best_sellers=["c", "gone", "a"]).bind(ROW_OF)
    assert bound.best_seller_row.tolist() == [2, 0]
    assert NO_SIGNALS.bind(ROW_OF).best_seller_row.tolist() == []


def test_a_pair_holds_both_ways_and_what_goes_with_several_adds_up() -> None:
    pairs = [("a", "b", 9.0), ("d", "c", 6.0), ("a", "c", 5.0), ("a", "gone", 4.0), ("e", "d", 1.0)]
    bound = signals(bought_together=pairs).bind(ROW_OF)
    assert bound.complements_of([0]).tolist() == [1, 2]
    assert bound.complements_of([1]).tolist() == [0]
    assert bound.complements_of([0, 3]).tolist() == [2, 1, 4], "c goes with both: 11 beyond chance, b 9"
    assert bound.complements_of([0, 0, 3]).tolist() == [2, 1, 4], "each counts once"
    assert bound.complements_of([0, 1, 2]).tolist() == [3], "nothing of what is there already"
    assert bound.complements_of([]).tolist() == []


def test_of_equal_complements_the_lower_row_comes_first() -> None:
    bound = signals(bought_together=[("a", "d", 2.0), ("a", "b", 2.0)]).bind(ROW_OF)
    assert bound.complements_of([0]).tolist() == [1, 3]


def test_a_product_has_so_many_complements_at_most_and_they_are_its_best() -> None:
    names = [f"p{number:02d}" for number in range(40)]
    pairs = [("hub", name, 100.0 - number) for number, name in enumerate(names)]
    bound = signals(bought_together=pairs).bind({name: row for row, name in enumerate(["hub", *names])})
    assert bound.complements_of([0]).tolist() == list(range(1, COMPLEMENT_COUNT_MAX + 1))
    assert bound.complements_of([40]).tolist() == [0], "though it is none of the hub's best"
