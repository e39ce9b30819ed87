"""Navigation patterns: what is refused when saved."""

import msgspec
import pytest

from affinity.audience import Vocabulary
from affinity.errors import PatternRefused
from affinity.navigation import Action
from affinity.pattern import (
    NavigationPattern,
    PatternStep,
    covers,
    product_fields_of,
    product_targets_of,
    validate_pattern,
    words_of,
)
from affinity.product_target import Target

KNOWN = Vocabulary(categories=frozenset({"A", "A > B"}))
VIEW, BUY = Action.VIEW_ITEM, Action.PURCHASE


def pattern(*steps: PatternStep, without: list[PatternStep] | None = None) -> NavigationPattern:
    return NavigationPattern(within="session", steps=list(steps), without=without or [])


def test_a_pattern_of_known_things_can_be_saved() -> None:
    steps = (
        PatternStep(action=VIEW, category_id="A > B", at_least=2),
        PatternStep(action=Action.SEARCH, query_contains="trail"),
    )
    validate_pattern(pattern(*steps, without=[PatternStep(action=BUY, category_id="A")]), KNOWN)


@pytest.mark.parametrize(
    ("refused_pattern", "code", "pointer"),
    [
        (pattern(PatternStep(action=VIEW, category_id="C")), "category_unknown", "/p/steps/0/category_id"),
        (
            pattern(PatternStep(action=VIEW), without=[PatternStep(action=BUY, category_id="C")]),
            "category_unknown",
            "/p/without/0/category_id",
        ),
        (
            pattern(PatternStep(action=VIEW, price_at_least_micros=2, price_at_most_micros=1)),
            "pattern_contradictory",
            "/p/steps/0",
        ),
        (pattern(PatternStep(action=VIEW, query_contains="--")), "pattern_contradictory", "/p/steps/0/query_contains"),
        (
            pattern(PatternStep(action=VIEW), without=[PatternStep(action=BUY, at_least=2)]),
            "pattern_contradictory",
            "/p/without/0/at_least",
        ),
        (
            pattern(PatternStep(action=VIEW, at_least=60), PatternStep(action=BUY, at_least=41)),
            "pattern_too_long",
            "/p/steps",
        ),
        (
            pattern(PatternStep(action=VIEW, category_id="A > B", at_least=2), without=[PatternStep(action=VIEW)]),
            "pattern_unsatisfiable",
            "/p/steps/0",
        ),
        (
            pattern(
                PatternStep(action=VIEW),
                PatternStep(action=BUY, category_id="A > B"),
                without=[PatternStep(action=BUY, category_id="A")],
            ),
            "pattern_unsatisfiable",
            "/p/steps/1",
        ),
    ],
)
def test_a_pattern_that_can_never_hold_is_refused_where_it_stands(
    refused_pattern: NavigationPattern, code: str, pointer: str
) -> None:
    with pytest.raises(PatternRefused) as refused:
        validate_pattern(refused_pattern, KNOWN, "/p")
    assert (refused.value.code, refused.value.pointer) == (code, pointer)


def test_only_the_same_product_target_forbids_whatever_a_step_asks_for() -> None:
    old, new = (
        PatternStep(action=VIEW, product_target=Target(field="is_new", equals=value)) for value in (False, True)
    )
    assert covers(PatternStep(action=VIEW), new)
    assert covers(new, PatternStep(action=VIEW, category_id="A", product_target=new.product_target))
    assert not covers(new, old)
    assert not covers(new, PatternStep(action=VIEW))


def test_product_targets_are_found_once_each_and_with_every_field() -> None:
    one = PatternStep(action=VIEW, product_target=Target(field="new", equals=1))
    flag = PatternStep(action=BUY, product_target=Target(not_=Target(field="old", equals=True)))
    first, second = pattern(one, flag, without=[one]), pattern(PatternStep(action=VIEW), without=[flag])
    assert product_targets_of([first, second]) == [one.product_target, flag.product_target]
    assert product_fields_of(first) == {"new", "old"}
    assert product_fields_of(pattern(PatternStep(action=VIEW))) == frozenset()


@pytest.mark.parametrize("steps", [0, 9, 50])
def test_a_pattern_has_one_to_eight_steps(steps: int) -> None:
    body = {"within": "session", "steps": [{"action": "view_item"}] * steps}
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(body, NavigationPattern)


def test_a_pattern_may_want_a_hundred_events() -> None:
    validate_pattern(pattern(PatternStep(action=VIEW, at_least=60), PatternStep(action=BUY, at_least=40)), KNOWN)


def test_words_are_told_apart_however_their_accents_are_encoded() -> None:
    assert words_of("Crème-BRÛLÉE") == words_of("cre\u0300me bru\u0302le\u0301e") == {"crème", "brûlée"}
    assert words_of("ＡＢＣ ½") == words_of("abc 1⁄2")


def test_a_condition_covers_narrower_ones_only() -> None:
    cheap = PatternStep(action=VIEW, price_at_most_micros=10)
    assert covers(cheap, PatternStep(action=VIEW, price_at_most_micros=9))
    assert not covers(cheap, PatternStep(action=VIEW, price_at_most_micros=11))
    assert not covers(cheap, PatternStep(action=VIEW))
    words = PatternStep(action=Action.SEARCH, query_contains="trail")
    assert covers(words, PatternStep(action=Action.SEARCH, query_contains="trail shoe"))
    assert not covers(words, PatternStep(action=Action.SEARCH, query_contains="shoe"))
    mail = PatternStep(action=VIEW, traffic_source="Mail")
    assert covers(mail, PatternStep(action=VIEW, traffic_source="mail", brand="B"))
    assert not covers(mail, PatternStep(action=VIEW, traffic_source="search"))
    assert not covers(mail, PatternStep(action=VIEW))
