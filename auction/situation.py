"""When a rule acts: what is true of a request, reduced to what some rule asks, so that few situations differ."""

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

from auction.campaign import TemperatureRange
from auction.retailer_rule import Condition, RetailerRule

DIMENSIONS = ("device", "region", "store", "weather")


class Situation(NamedTuple):
    """Everything the rules' schedules and conditions look at; what none of them names is None.

    Attributes:
        turn: how many beginnings and ends of schedules are past.
        values: of the context, in the order of DIMENSIONS.
        segments: of the visitor, those that are named.
        hour: of the day, in the retailer's time zone.
        is_warm: for each range of temperature that is asked for, whether it is met.
    """

    turn: int = 0
    values: tuple[str | None, ...] = (None,) * len(DIMENSIONS)
    segments: frozenset[str] = frozenset()
    hour: int | None = None
    is_warm: tuple[bool, ...] = ()


NO_SITUATION = Situation()


class Questions:
    """What a snapshot's rules ask of a request."""

    def __init__(self, rules: Sequence[RetailerRule], time_zone: str) -> None:
        conditions = [condition for rule in rules for condition in rule.when]
        named = [frozenset(name for one in conditions for name in getattr(one, kind) or ()) for kind in DIMENSIONS]
        named[0] |= frozenset(name for rule in rules for name in rule.scope.devices or ())
        self._named = [(place, DIMENSIONS[place], names) for place, names in enumerate(named) if names]
        self._segments = frozenset(name for rule in rules for name in rule.scope.segments or ())
        self._segments |= frozenset(name for one in conditions for name in one.segment or ())
        self._asks_hour = any(one.hour is not None or one.hours is not None for one in conditions)
        self._ranges: list[TemperatureRange] = []
        for one in conditions:
            if one.temperature_c is not None and one.temperature_c not in self._ranges:
                self._ranges.append(one.temperature_c)
        self._zone = ZoneInfo(time_zone)
        ends = (end for rule in rules for end in (rule.schedule.starts_at, rule.schedule.ends_at))
        self._turns_ms = sorted({_milliseconds(end) for end in ends if end is not None})

    def ask(self, context: Mapping[str, Any], segments: frozenset[str], now_ms: int) -> Situation:
        """Return the situation of a request."""
        values = NO_SITUATION.values
        if self._named:
            told: list[str | None] = [None] * len(DIMENSIONS)
            for place, kind, names in self._named:
                value = context.get(kind)
                told[place] = value if isinstance(value, str) and value in names else None
            values = tuple(told)
        return Situation(
            bisect_right(self._turns_ms, now_ms) if self._turns_ms else 0,
            values,
            segments & self._segments if self._segments else NO_SITUATION.segments,
            datetime.fromtimestamp(now_ms / 1000, self._zone).hour if self._asks_hour else None,
            self._feel(context.get("temperature_c")) if self._ranges else (),
        )

    def are_met(self, rule: RetailerRule, situation: Situation) -> bool:
        """Say whether the rule's schedule, its scope's devices and segments, and all its conditions hold."""
        scope, device = rule.scope, situation.values[0]
        return (
            self._is_in_force(rule, situation.turn)
            and (scope.devices is None or device in scope.devices)
            and (scope.segments is None or not situation.segments.isdisjoint(scope.segments))
            and all(self._holds(condition, situation) for condition in rule.when)
        )

    def _is_in_force(self, rule: RetailerRule, turn: int) -> bool:
        starts_at, ends_at = rule.schedule.starts_at, rule.schedule.ends_at
        if starts_at is not None and turn <= self._turns_ms.index(_milliseconds(starts_at)):
            return False
        return ends_at is None or turn <= self._turns_ms.index(_milliseconds(ends_at))

    def _holds(self, condition: Condition, situation: Situation) -> bool:
        for kind, value in zip(DIMENSIONS, situation.values, strict=True):
            wanted = getattr(condition, kind)
            if wanted is not None and value not in wanted:
                return False
        if condition.segment is not None and situation.segments.isdisjoint(condition.segment):
            return False
        if condition.hour is not None and not condition.hour.includes(situation.hour or 0):
            return False
        if condition.hours is not None and situation.hour not in condition.hours:
            return False
        warmth = condition.temperature_c
        return warmth is None or situation.is_warm[self._ranges.index(warmth)]

    def _feel(self, told: object) -> tuple[bool, ...]:
        if not isinstance(told, int | float) or isinstance(told, bool) or not -1000 <= told <= 1000:
            return (False,) * len(self._ranges)
        return tuple([one.includes(told) for one in self._ranges])


def _milliseconds(moment: datetime) -> int:
    return int(moment.timestamp() * 1000)
