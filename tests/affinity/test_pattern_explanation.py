"""How far a visitor is with a pattern, as a merchant is told."""

import random
from datetime import UTC, datetime, timedelta

import pytest

from affinity.matching import Happening
from affinity.navigation import Action
from affinity.pattern import NavigationPattern, PatternStep
from affinity.pattern_explanation import PatternExplanation, explain_pattern
from affinity.product_target import Target
from tests.affinity.histories import (
    BUY,
    CART,
    MINUTE_MS,
    SEARCH,
    START_MS,
    VIEW,
    random_catalogue,
    random_history,
    random_moment,
    random_pattern,
    sets_of,
)
from tests.affinity.naive import SESSION_GAP_MS, in_order, pattern_holds

LOOKED_THEN_SEARCHED = NavigationPattern(
    within="session",
    steps=[
        PatternStep(action=VIEW, category_id="Shoes", at_least=2),
        PatternStep(action=SEARCH, query_contains="trail"),
    ],
    without=[PatternStep(action=Action.DISMISS), PatternStep(action=BUY, category_id="Shoes")],
)
LOOKED_THEN_CARTED = NavigationPattern(within=600, steps=[PatternStep(action=VIEW), PatternStep(action=CART)])


def at(minute: float) -> datetime:
    return datetime.fromtimestamp(START_MS // 1000, UTC) + timedelta(minutes=minute)


def did(action: Action, minute: float, query: str | None = None) -> Happening:
    return Happening(START_MS + int(minute * MINUTE_MS), action, category_id="Shoes", query=query)


def explain(pattern: NavigationPattern, events: list[Happening] | None, minute: float) -> PatternExplanation:
    return explain_pattern(pattern, events, SESSION_GAP_MS, START_MS + int(minute * MINUTE_MS))


def done(explained: PatternExplanation) -> list[tuple[bool, int, int, list[datetime]]]:
    return [(step.is_satisfied, step.done_count, step.missing_count, step.occurred_at) for step in explained.steps]


def test_steps_are_told_with_when_how_often_and_what_is_missing() -> None:
    explained = explain(LOOKED_THEN_SEARCHED, [did(VIEW, 0), did(VIEW, 3)], 5)
    assert (explained.status, explained.holds) == ("begun", False)
    assert done(explained) == [(True, 2, 0, [at(0), at(3)]), (False, 0, 1, [])]
    assert explained.lapses_at == at(33)
    assert explained.ended_run is None
    assert explained.explanation == "Missing next: step 2, 1 more."
    assert (explained.event_count, explained.events_since, explained.as_of) == (2, at(0), at(5))


def test_a_pattern_that_holds_says_until_when() -> None:
    explained = explain(LOOKED_THEN_SEARCHED, [did(VIEW, 0), did(VIEW, 3), did(SEARCH, 6, "trail shoes")], 36)
    assert (explained.status, explained.holds, explained.lapses_at) == ("holds", True, at(36))
    assert all(step.is_satisfied for step in explained.steps)


def test_an_event_it_must_be_without_is_named_and_what_it_ended() -> None:
    explained = explain(LOOKED_THEN_SEARCHED, [did(VIEW, 0), did(VIEW, 3), did(BUY, 4), did(VIEW, 5)], 6)
    assert explained.status == "begun"
    assert done(explained) == [(False, 1, 1, [at(5)]), (False, 0, 1, [])]
    assert [(one.last_occurred_at, one.stands_in_the_way) for one in explained.without] == [
        (None, False),
        (at(4), True),
    ]
    ended = explained.ended_run
    assert ended is not None
    assert (ended.ended_by, ended.ended_at) == ("without", at(4))
    assert [step.done_count for step in ended.steps] == [2, 0]


def test_what_was_forbidden_before_it_began_does_not_stand_in_the_way() -> None:
    explained = explain(LOOKED_THEN_SEARCHED, [did(BUY, 0), did(VIEW, 1)], 2)
    assert [(one.last_occurred_at, one.stands_in_the_way) for one in explained.without] == [
        (None, False),
        (at(0), False),
    ]
    assert (explained.status, explained.ended_run) == ("begun", None)


@pytest.mark.parametrize(
    ("pattern", "events", "minute", "ended_at"),
    [
        (LOOKED_THEN_CARTED, [did(VIEW, 0), did(CART, 4)], 11, 10),
        (LOOKED_THEN_CARTED, [did(VIEW, 0), did(CART, 10)], 11, 10),
        (LOOKED_THEN_SEARCHED, [did(VIEW, 0), did(VIEW, 20)], 51, 50),
    ],
)
def test_a_run_whose_window_ended_says_when(
    pattern: NavigationPattern, events: list[Happening], minute: float, ended_at: float
) -> None:
    explained = explain(pattern, events, minute)
    assert explained.status == "ended"
    assert sum(step.done_count for step in explained.steps) == 0
    ended = explained.ended_run
    assert ended is not None
    assert (ended.ended_by, ended.ended_at) == ("within", at(ended_at))
    assert sum(step.done_count for step in ended.steps) == 2


def test_what_came_after_the_window_is_no_part_of_the_run_that_ended() -> None:
    ended = explain(LOOKED_THEN_CARTED, [did(VIEW, 0), did(CART, 11)], 12).ended_run
    assert ended is not None
    assert [step.done_count for step in ended.steps] == [1, 0]


def test_the_latest_of_equal_beginnings_is_shown() -> None:
    explained = explain(LOOKED_THEN_CARTED, [did(VIEW, 0), did(VIEW, 5)], 6)
    assert done(explained)[0] == (True, 1, 0, [at(5)])
    assert explained.lapses_at == at(15)


def test_a_visitor_nothing_is_kept_of_is_told_apart_from_one_who_did_nothing_of_it() -> None:
    unknown, idle = explain(LOOKED_THEN_CARTED, None, 0), explain(LOOKED_THEN_CARTED, [], 0)
    assert (unknown.status, idle.status) == ("visitor_unknown", "not_begun")
    assert "did not consent" in unknown.explanation
    for explained in (unknown, idle):
        assert not explained.holds
        assert [step.missing_count for step in explained.steps] == [1, 1]
        assert (explained.lapses_at, explained.events_since, explained.event_count) == (None, None, 0)


def test_what_is_told_is_what_an_auction_is_told() -> None:
    """Whether it holds, and to the millisecond until when, on random histories × patterns."""
    rng = random.Random(5)
    held_count = ended_count = 0
    for _ in range(400):
        history = random_history(rng)
        now_ms, arrived = random_moment(rng, history), list(enumerate(history))
        patterns, catalogue = [random_pattern(rng) for _ in range(5)], random_catalogue(rng)
        sets = sets_of(patterns, catalogue)
        for pattern in patterns:
            explained = explain_pattern(pattern, in_order(arrived, 128), SESSION_GAP_MS, now_ms, sets)
            assert explained.holds is pattern_holds(pattern, arrived, now_ms, catalogue=catalogue)
            ended_count += explained.ended_run is not None
            if explained.holds:
                held_count += 1
                assert explained.lapses_at is not None
                lapses_ms = round(explained.lapses_at.timestamp() * 1000)
                assert pattern_holds(pattern, arrived, lapses_ms, catalogue=catalogue)
                assert not pattern_holds(pattern, arrived, lapses_ms + 1, catalogue=catalogue)
    assert held_count > 100
    assert ended_count > 100


def test_a_condition_on_the_product_is_told_in_words() -> None:
    summer = Target(all=[Target(field="season", equals="summer"), Target(field="is_new", equals=True)])
    heavy = Target(field="weight", at_least=5)
    pattern = NavigationPattern(
        within="session",
        steps=[PatternStep(action=VIEW, product_target=summer, at_least=2)],
        without=[PatternStep(action=BUY, product_target=heavy)],
    )
    sets = sets_of([pattern], {"p": {"season": "summer", "is_new": True}, "q": {"weight": 7}})
    events = [Happening(START_MS, VIEW, "p"), Happening(START_MS + 1, VIEW, "p"), Happening(START_MS + 2, BUY, "q")]
    explained = explain_pattern(pattern, events, SESSION_GAP_MS, START_MS + 3, sets)
    assert explained.explanation == (
        f"A run of 2 of 2 events ended at {at(0) + timedelta(milliseconds=2)}: an event it must be without, of a "
        "product where weight is at least 5. Missing next: step 1, 2 more, of a product where season is summer and "
        "is_new is true."
    )


def test_a_run_that_ended_no_further_than_what_counts_is_not_told() -> None:
    explained = explain(LOOKED_THEN_SEARCHED, [did(VIEW, 0), did(BUY, 1), did(VIEW, 2)], 3)
    assert (explained.status, explained.ended_run) == ("begun", None)
    assert not any(one.stands_in_the_way for one in explained.without)


@pytest.mark.parametrize(("pause", "done_count"), [(30, 2), (30.001, 1)])
def test_a_pause_of_thirty_minutes_is_within_one_session(pause: float, done_count: int) -> None:
    explained = explain(LOOKED_THEN_SEARCHED, [did(VIEW, 0), did(VIEW, pause)], pause + 1)
    assert explained.steps[0].done_count == done_count
