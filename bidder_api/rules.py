"""The merchant's rules, checked against the catalogue when saved: draft until published, archived rather than lost."""

from collections.abc import Mapping
from typing import Literal

import msgspec
from sqlalchemy.engine import Connection

from affinity.product_target import RULE_FIELDS, SIGNAL_VALUES, Target
from affinity.signals import NO_SIGNALS
from affinity.store import get_product, get_products, next_change_seq, read_attribute_types, read_signals
from auction.campaign import TemperatureRange
from auction.conflicts import RuleConflict, Surroundings, conflicts_of
from auction.placement import Floors
from auction.retailer_rule import Condition, Effect, RetailerRule, RuleDraft, Value
from auction.store import (
    get_placement,
    get_rule,
    insert_rule,
    list_bookings,
    list_placements,
    list_rules,
    list_virtual_attributes,
    update_rule,
    virtual_attribute_types,
)
from bidder_api.call import Answer, Call, check_match, etag
from bidder_api.errors import Conflict, Invalid, NotFound
from bidder_api.resources import PageQuery, given, make_id, moment, page_of, patch_type, read_page
from ledger.money import impression_price

RulePatch = patch_type(RuleDraft, "RulePatch")
RulePage = page_of("Rule", RetailerRule)
TARGET_DEPTH_MAX = 16
TARGET_NODE_COUNT_MAX = 500
RULE_COUNT_MAX = 10_000  # rules, placements and bookings a rule is compared with
_WITHOUT_TARGET = {
    "pin": "a pin names its product; it has no target",
    "own_brand_min": "own_brand_min is about own-brand products; it has no target",
    "sponsored_max": "sponsored_max is about everything paid; it has no target",
}
# Asking for them would tell an advertiser what they are.
MERCHANTS_FIELDS = frozenset({"margin_rate", "stock", "is_best_seller", "category_trend"})
_NUMERIC_FIELDS = frozenset({"price_micros", "margin_rate", "stock", "rating", "image_count", "age_days"})


class CheckedRule(RetailerRule, frozen=True, kw_only=True):
    """A rule as it stands, and what of it does not go together with the live rules, placements and bookings."""

    warnings: list[RuleConflict]


class RuleQuery(PageQuery, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Query of the list of rules; archived ones are listed only when asked for by stage."""

    stage: Literal["draft", "live", "archived"] | None = None


def create_rule(connection: Connection, call: Call) -> Answer:
    """Make a rule, a draft unless said otherwise."""
    rule = from_draft(call.body, make_id("rul", call), call.now_ms, next_change_seq(connection, call.retailer_id))
    _check_segments(call, rule)
    check_rule(connection, call.retailer_id, rule)
    insert_rule(connection, call.retailer_id, rule)
    call.log("create", "rule", rule.rule_id, after=rule)
    return Answer(
        body=_checked(connection, call, rule),
        headers={"ETag": etag(rule.change_seq), "Location": f"/v1/rules/{rule.rule_id}"},
    )


def read_rule(connection: Connection, call: Call) -> Answer:
    """Return one rule."""
    rule = _find(connection, call)
    return Answer(body=_checked(connection, call, rule), headers={"ETag": etag(rule.change_seq)})


def list_all(connection: Connection, call: Call) -> Answer:
    """Return a page of rules."""
    query: RuleQuery = call.query

    def read(after: str | None, limit: int) -> list[RetailerRule]:
        return list_rules(connection, call.retailer_id, after, limit, stage=query.stage)

    return Answer(body=read_page(query, read, lambda rule: rule.rule_id))


def change_rule(connection: Connection, call: Call) -> Answer:
    """Change some of a rule; `stage` live publishes it."""
    rule = _find(connection, call)
    check_match(call, rule.change_seq)
    if rule.stage == "archived":
        raise Conflict("rule_archived", "an archived rule cannot be changed")
    return _store(connection, call, rule, "update", given(call.body))


def archive_rule(connection: Connection, call: Call) -> Answer:
    """Archive a rule; it no longer acts. Archiving it again changes nothing."""
    rule = _find(connection, call)
    check_match(call, rule.change_seq)
    if rule.stage != "archived":
        _store(connection, call, rule, "archive", {"stage": "archived"})
    return Answer()


def from_draft(draft: RuleDraft, rule_id: str, now_ms: int, change_seq: int) -> RetailerRule:
    """Return the rule a draft makes."""
    now = moment(now_ms)
    values = msgspec.structs.asdict(draft)
    return RetailerRule(**values, rule_id=rule_id, created_at=now, updated_at=now, change_seq=change_seq)


def check_rule(connection: Connection, retailer_id: str, rule: RetailerRule, pointer: str = "") -> None:
    """Check what no single field's type can say, in the order of the fields.

    Raises:
        Invalid: an effect that does nothing or several things, or names what is not there; a target that asks for a
            field no product has; a condition that says nothing or several things; a schedule that ends before it
            starts.
    """
    _check_effect(connection, retailer_id, rule.effect, rule.target, f"{pointer}/effect")
    if rule.target is not None:
        for name, why in _WITHOUT_TARGET.items():
            if getattr(rule.effect, name) is not None:
                raise Invalid("target_not_allowed", why, f"{pointer}/target")
    for row, placement_id in enumerate(rule.scope.placements or ()):
        if get_placement(connection, retailer_id, placement_id) is None:
            at = f"{pointer}/scope/placements/{row}"
            raise Invalid("placement_unknown", f"there is no placement {placement_id!r}", at)
    for row, condition in enumerate(rule.when):
        _check_condition(condition, f"{pointer}/when/{row}")
    if rule.target is not None:
        check_target(rule.target, product_field_kinds(connection, retailer_id), f"{pointer}/target")
    starts_at, ends_at = rule.schedule.starts_at, rule.schedule.ends_at
    if starts_at is not None and ends_at is not None and ends_at <= starts_at:
        raise Invalid("schedule_ends_before_start", "ends_at must be after starts_at", f"{pointer}/schedule/ends_at")


def _check_segments(call: Call, rule: RetailerRule) -> None:
    """Refuse a rule for segments that tell of a special category of personal data."""
    for row, segment_id in enumerate(rule.scope.segments or ()):
        call.special.check(segment_id, f"/scope/segments/{row}")


def _check_effect(connection: Connection, retailer_id: str, effect: Effect, target: Target | None, at: str) -> None:
    named = [name for name in Effect.__struct_fields__ if getattr(effect, name) is not None]
    if len(named) != 1:
        kinds = ", ".join(Effect.__struct_fields__)
        raise Invalid("effect_ambiguous", f"an effect is one of {kinds}; this one names {len(named)}", at)
    if effect.pin is not None and get_product(connection, retailer_id, effect.pin.product_id) is None:
        raise Invalid("product_unknown", f"there is no product {effect.pin.product_id!r}", f"{at}/pin/product_id")
    if effect.require and target is None:
        raise Invalid("target_missing", "require names what may stand there: give a target", f"{at}/require")
    if effect.value == Value():
        raise Invalid(
            "value_empty", "a value says what an impression is worth: give at least one of its parts", f"{at}/value"
        )
    if isinstance(effect.floor, Floors):
        try:
            impression_price(effect.floor.impression)
        except ValueError:
            message = f"the floor per 1000 impressions must be a multiple of 1000, was {effect.floor.impression}"
            raise Invalid("floor_micros_indivisible", message, f"{at}/floor/impression") from None


def _check_condition(condition: Condition, at: str) -> None:
    named = [name for name in Condition.__struct_fields__ if getattr(condition, name) is not None]
    if len(named) != 1:
        kinds = ", ".join(Condition.__struct_fields__)
        raise Invalid("condition_ambiguous", f"a condition is one of {kinds}; this one names {len(named)}", at)
    if condition.hour is not None and condition.hour.from_ == condition.hour.to:
        raise Invalid("hours_empty", "from and to must differ", f"{at}/hour/to")
    if condition.temperature_c is not None:
        check_temperature(condition.temperature_c, f"{at}/temperature_c")


def check_temperature(wanted: TemperatureRange, at: str) -> None:
    """Check a range of temperatures.

    Raises:
        Invalid: it has no end, or its ends are the wrong way round.
    """
    if wanted.at_least is None and wanted.at_most is None:
        raise Invalid("temperature_empty", "give at_least, at_most or both", at)
    if wanted.at_least is not None and wanted.at_most is not None and wanted.at_least > wanted.at_most:
        raise Invalid("temperature_contradictory", "at_least must be at most at_most", f"{at}/at_most")


def product_field_kinds(connection: Connection, retailer_id: str) -> dict[str, str]:
    """Return the types of custom and virtual attributes of products."""
    return {
        **read_attribute_types(connection, retailer_id, "product"),
        **virtual_attribute_types(connection, retailer_id),
    }


def check_target(target: Target, kinds: Mapping[str, str], at: str) -> None:
    """Check a tree over product fields; `kinds` are the types of custom and virtual attributes.

    Raises:
        Invalid: a node is nothing or several things, too deep, or asks what no product says.
    """
    _check_target(target, kinds, at, 1, [0])


def check_advertisers_target(connection: Connection, retailer_id: str, target: Target, at: str) -> None:
    """Check a tree over product fields that comes from an advertiser.

    Raises:
        Invalid: see `check_target`; or it asks for what is the merchant's alone.
    """
    check_target(target, product_field_kinds(connection, retailer_id), at)
    secret = sorted(target.fields & MERCHANTS_FIELDS)
    if secret:
        raise Invalid("field_not_allowed", f"{secret[0]} is the merchant's alone to ask for", at)


def _check_target(target: Target, kinds: Mapping[str, str], at: str, depth: int, count: list[int]) -> None:
    count[0] += 1
    if depth > TARGET_DEPTH_MAX or count[0] > TARGET_NODE_COUNT_MAX:
        message = f"a target has at most {TARGET_DEPTH_MAX} levels and {TARGET_NODE_COUNT_MAX} nodes"
        raise Invalid("target_too_deep", message, at)
    heads = [name for name in ("all", "any", "not_", "field") if getattr(target, name) is not None]
    if len(heads) != 1:
        raise Invalid("target_ambiguous", f"a node is one of all, any, not, field; this one has {len(heads)}", at)
    comparisons = [name for name in ("equals", "one_of", "at_least", "at_most") if getattr(target, name) is not None]
    if target.field is None:
        if comparisons:
            raise Invalid("target_ambiguous", f"{comparisons[0]} goes with field only", f"{at}/{comparisons[0]}")
        for name, children in (("all", target.all), ("any", target.any)):
            for row, child in enumerate(children or ()):
                _check_target(child, kinds, f"{at}/{name}/{row}", depth + 1, count)
        if target.not_ is not None:
            _check_target(target.not_, kinds, f"{at}/not", depth + 1, count)
        return
    if target.field not in RULE_FIELDS and target.field not in kinds:
        raise Invalid("field_unknown", f"no product has a field {target.field!r}", f"{at}/field")
    if not comparisons:
        raise Invalid("target_incomplete", "compare the field: equals, one_of, at_least or at_most", at)
    _check_signal_values(target, at)
    is_numeric = target.field in _NUMERIC_FIELDS or kinds.get(target.field) in ("int", "float")
    for name in ("at_least", "at_most"):
        if name in comparisons and not is_numeric:
            raise Invalid("field_type_differs", f"{target.field} is not a number", f"{at}/{name}")
    if target.at_least is not None and target.at_most is not None and target.at_least > target.at_most:
        raise Invalid("target_contradictory", "at_least must be at most at_most", f"{at}/at_most")


def _check_signal_values(target: Target, at: str) -> None:
    """Check that a computed field is compared with values it can have; any other could never hold."""
    known = SIGNAL_VALUES.get(target.field or "")
    if known is None:
        return
    wanted = [(f"{at}/equals", target.equals)] if target.equals is not None else []
    wanted += [(f"{at}/one_of/{row}", value) for row, value in enumerate(target.one_of or ())]
    for pointer, value in wanted:
        if (type(value), value) not in {(type(one), one) for one in known}:
            words = ", ".join(sorted(str(one).lower() for one in known))
            raise Invalid("value_unknown", f"{target.field} is one of {words}, was {value!r}", pointer)


def _checked(connection: Connection, call: Call, rule: RetailerRule) -> CheckedRule:
    """Return the rule with what it runs into, taken as live: a draft is told before it is published."""
    warnings: list[RuleConflict] = []
    if rule.stage != "archived":
        live = list_rules(connection, call.retailer_id, None, RULE_COUNT_MAX, stage="live")
        others = [one for one in live if one.rule_id != rule.rule_id]
        keeps_out = rule.effect.exclude or rule.effect.require  # which others pin matters to such a rule alone
        pinning = (rule, *others) if keeps_out else (rule,)
        pinned = {one.effect.pin.product_id for one in pinning if one.effect.pin is not None}
        around = Surroundings(
            placements=list_placements(connection, call.retailer_id, None, RULE_COUNT_MAX),
            bookings=list_bookings(connection, call.retailer_id, None, RULE_COUNT_MAX, status="active"),
            products=get_products(connection, call.retailer_id, pinned),
            attributes=list_virtual_attributes(connection, call.retailer_id, None, RULE_COUNT_MAX, status="active"),
            signals=read_signals(connection, call.retailer_id) or NO_SIGNALS,
            now_ms=call.now_ms,
        )
        warnings = conflicts_of(rule, others, around)
    return CheckedRule(**{name: getattr(rule, name) for name in RetailerRule.__struct_fields__}, warnings=warnings)


def _find(connection: Connection, call: Call) -> RetailerRule:
    rule = get_rule(connection, call.retailer_id, call.path["rule_id"])
    if rule is None:
        raise NotFound("rule", call.path["rule_id"])
    return rule


def _store(connection: Connection, call: Call, before: RetailerRule, action: str, changed: dict[str, object]) -> Answer:
    after = msgspec.structs.replace(
        before,
        **changed,
        updated_at=moment(call.now_ms),
        change_seq=next_change_seq(connection, call.retailer_id),
    )
    if action == "update":
        _check_segments(call, after)
        check_rule(connection, call.retailer_id, after)
    update_rule(connection, call.retailer_id, after)
    call.log(action, "rule", after.rule_id, before=before, after=after)
    return Answer(body=_checked(connection, call, after), headers={"ETag": etag(after.change_seq)})
