"""How far one visitor is with one navigation pattern, step by step, in words a merchant can check.

Reads the visitor's kept events again: what `matching.py` keeps is enough to say whether a pattern holds, not why it
does not.
"""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Literal, NamedTuple

from msgspec import Struct

from affinity.matching import Happening, are_of_step
from affinity.pattern import NavigationPattern, PatternStep
from affinity.product_sets import NO_SETS, ProductSets
from affinity.product_target import target_words

Status = Literal["holds", "begun", "ended", "not_begun", "visitor_unknown"]
EndedBy = Literal["without", "within"]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class StepProgress(Struct, frozen=True, kw_only=True):
    """What was done of one step.

    Attributes:
        step: the pattern's.
        is_satisfied: it happened often enough, after the steps before it.
        done_count, missing_count: how often it happened, and how often it must yet.
        occurred_at: when; at most as often as it must.
    """

    step: PatternStep
    is_satisfied: bool
    done_count: int
    missing_count: int
    occurred_at: list[datetime]


class ForbiddenEvent(Struct, frozen=True, kw_only=True):
    """One of the pattern's `without`.

    Attributes:
        step: the pattern's.
        last_occurred_at: when the visitor did it last, as far as events are kept.
        stands_in_the_way: it is what ended the run that came furthest.
    """

    step: PatternStep
    last_occurred_at: datetime | None
    stands_in_the_way: bool


class EndedRun(Struct, frozen=True, kw_only=True):
    """A run that came further than what counts now, and why it does not count.

    Attributes:
        ended_by: an event of `without`, or the end of the window.
        ended_at: when that event occurred, or the last moment the run counted.
        steps: how far it had come by then.
    """

    ended_by: EndedBy
    ended_at: datetime
    steps: list[StepProgress]


class PatternExplanation(Struct, frozen=True, kw_only=True):
    """How far a visitor is with a pattern.

    Attributes:
        as_of: the moment it is said of.
        status: `holds`; `begun` where something counts but not all; `ended` where nothing counts any more; `not_begun`;
            `visitor_unknown` where nothing is kept of the visitor.
        explanation: the same as a sentence.
        steps: what counts now.
        lapses_at: last moment at which that counts if nothing more happens; null where nothing counts.
        without: what must not have happened.
        ended_run: null where none came further than what counts now.
        event_count: events that are kept of the visitor and were looked at.
        events_since: when the oldest of them occurred.
    """

    as_of: datetime
    status: Status
    holds: bool
    explanation: str
    steps: list[StepProgress]
    lapses_at: datetime | None
    without: list[ForbiddenEvent]
    ended_run: EndedRun | None
    event_count: int
    events_since: datetime | None


class _Run(NamedTuple):
    """Events that do the wanted ones from one beginning on, until the run ended or now."""

    places: list[int]
    ends_ms: int  # last moment of its window
    has_ended: bool
    forbidden_place: int | None = None
    forbidden_row: int | None = None


def explain_pattern(
    pattern: NavigationPattern,
    events: Sequence[Happening] | None,
    session_gap_ms: int,
    now_ms: int,
    sets: ProductSets = NO_SETS,
) -> PatternExplanation:
    """Say how far a visitor is with a pattern, what is missing and what stands in the way.

    Of all events the run can have begun with, the one is shown that came furthest; of equals, the latest.

    Args:
        pattern: a valid one.
        events: the visitor's kept events, oldest first; None where nothing is known of the visitor.
        session_gap_ms: pause after which another session begins.
        now_ms: the moment asked about.
        sets: which of the events' products the pattern's product targets are about.
    """
    is_known, events = events is not None, events or ()
    wanted = [are_of_step(step, events, sets) for step in pattern.steps]
    forbidden = [are_of_step(step, events, sets) for step in pattern.without]
    runs = _runs(pattern, events, wanted, forbidden, session_gap_ms, now_ms)
    counting = _furthest([run for run in runs if not run.has_ended])
    ended = _furthest([run for run in runs if run.has_ended])
    done_count = 0 if counting is None else len(counting.places)
    if ended is not None and len(ended.places) <= done_count:
        ended = None
    steps = _steps(pattern, counting, events)
    status = _status(is_known, done_count, all(step.is_satisfied for step in steps), ended)
    lapses_at = None if counting is None else _moment(counting.ends_ms)
    ended_run = None if ended is None else _ended_run(pattern, ended, events)
    forbidden_step = None if ended is None or ended.forbidden_row is None else pattern.without[ended.forbidden_row]
    return PatternExplanation(
        as_of=_moment(now_ms),
        status=status,
        holds=status == "holds",
        explanation=_sentence(status, steps, lapses_at, ended_run, forbidden_step),
        steps=steps,
        lapses_at=lapses_at,
        without=[
            ForbiddenEvent(
                step=step,
                last_occurred_at=_last(events, of_step),
                stands_in_the_way=ended is not None and ended.forbidden_row == row,
            )
            for row, (step, of_step) in enumerate(zip(pattern.without, forbidden, strict=True))
        ],
        ended_run=ended_run,
        event_count=len(events),
        events_since=_moment(events[0].at_ms) if events else None,
    )


def _runs(
    pattern: NavigationPattern,
    events: Sequence[Happening],
    of_steps: list[list[bool]],
    forbidden: list[list[bool]],
    session_gap_ms: int,
    now_ms: int,
) -> list[_Run]:
    wanted = [
        of_step for step, of_step in zip(pattern.steps, of_steps, strict=True) for of_step in [of_step] * step.at_least
    ]
    session_ends_ms = _session_ends(events, session_gap_ms)
    runs = []
    for first, event in enumerate(events):
        if wanted[0][first]:
            ends_ms = session_ends_ms[first] if pattern.within == "session" else event.at_ms + pattern.within * 1000
            runs.append(_run(wanted, events, forbidden, first, ends_ms, ends_ms < now_ms))
    return runs


def _run(
    wanted: list[list[bool]],
    events: Sequence[Happening],
    forbidden: list[list[bool]],
    first: int,
    ends_ms: int,
    has_ended: bool,
) -> _Run:
    places = [first]
    for place in range(first + 1, len(events)):
        if has_ended and events[place].at_ms > ends_ms:
            break
        row = next((row for row, of_step in enumerate(forbidden) if of_step[place]), None)
        if row is not None:
            return _Run(places, ends_ms, True, place, row)
        if len(places) < len(wanted) and wanted[len(places)][place]:
            places.append(place)
    return _Run(places, ends_ms, has_ended)


def _session_ends(events: Sequence[Happening], session_gap_ms: int) -> list[int]:
    """Return, for each event, the last moment of its session."""
    ends = [event.at_ms + session_gap_ms for event in events]
    for place in range(len(events) - 2, -1, -1):
        if events[place + 1].at_ms <= ends[place]:
            ends[place] = ends[place + 1]
    return ends


def _furthest(runs: Sequence[_Run]) -> _Run | None:
    return max(runs, key=lambda run: (len(run.places), run.places[0]), default=None)


def _steps(pattern: NavigationPattern, run: _Run | None, events: Sequence[Happening]) -> list[StepProgress]:
    places = [] if run is None else run.places
    steps, base = [], 0
    for step in pattern.steps:
        done = places[base : base + step.at_least]
        base += step.at_least
        steps.append(
            StepProgress(
                step=step,
                is_satisfied=len(done) == step.at_least,
                done_count=len(done),
                missing_count=step.at_least - len(done),
                occurred_at=[_moment(events[place].at_ms) for place in done],
            )
        )
    return steps


def _ended_run(pattern: NavigationPattern, run: _Run, events: Sequence[Happening]) -> EndedRun:
    place = run.forbidden_place
    return EndedRun(
        ended_by="within" if place is None else "without",
        ended_at=_moment(run.ends_ms if place is None else events[place].at_ms),
        steps=_steps(pattern, run, events),
    )


def _status(is_known: bool, done_count: int, is_whole: bool, ended: _Run | None) -> Status:
    if not is_known:
        return "visitor_unknown"
    if is_whole:
        return "holds"
    if done_count:
        return "begun"
    return "not_begun" if ended is None else "ended"


def _sentence(
    status: Status,
    steps: list[StepProgress],
    lapses_at: datetime | None,
    ended_run: EndedRun | None,
    forbidden: PatternStep | None,
) -> str:
    if status == "visitor_unknown":
        return (
            "Nothing is kept of this visitor, so no pattern holds: they were never seen, did not consent, were erased, "
            "or were not seen for long."
        )
    if status == "holds":
        return f"The pattern holds, until {lapses_at} if nothing more happens."
    words = [] if status != "not_begun" else ["Nothing was done of the first step."]
    if ended_run is not None:
        done = sum(step.done_count for step in ended_run.steps)
        why = "its window ended" if forbidden is None else f"an event it must be without{_of_product(forbidden)}"
        words.append(f"A run of {done} of {_wanted(steps)} events ended at {ended_run.ended_at}: {why}.")
    missing = next((step, number) for number, step in enumerate(steps, 1) if not step.is_satisfied)
    of_product = _of_product(missing[0].step)
    return " ".join([*words, f"Missing next: step {missing[1]}, {missing[0].missing_count} more{of_product}."])


def _of_product(step: PatternStep) -> str:
    """Return a step's condition on the attributes of its product in words, nothing where it has none."""
    return "" if step.product_target is None else f", of a product where {target_words(step.product_target)}"


def _last(events: Sequence[Happening], of_step: list[bool]) -> datetime | None:
    return max((_moment(event.at_ms) for event, is_one in zip(events, of_step, strict=True) if is_one), default=None)


def _wanted(steps: list[StepProgress]) -> int:
    return sum(step.done_count + step.missing_count for step in steps)


def _moment(at_ms: int) -> datetime:
    return _EPOCH + timedelta(milliseconds=at_ms)
