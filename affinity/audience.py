"""Whom a bid is for: typed trees over what is known of a visitor, compiled to one bit per audience.

Holds the tree and its checks; `targets.py` compiles it.
"""

from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

from affinity.catalog import Attribute, AttributeName, AttributeType, CategoryId, ProductId, attribute_type
from affinity.computed import CLV_TIERS
from affinity.contradiction import LOYALTY_ATTRIBUTE, Assumptions
from affinity.errors import AudienceRefused
from affinity.profile import SegmentId
from affinity.special import SpecialCategories

Days = Annotated[int, Meta(ge=1, le=3650)]

DEPTH_MAX = 16
NODE_COUNT_MAX = 500

RFM_CLASSES = (
    "champion",
    "loyal",
    "potential_loyalist",
    "new",
    "promising",
    "needs_attention",
    "about_to_sleep",
    "at_risk",
    "cannot_lose",
    "hibernating",
    "lost",
)
LIFECYCLES = ("prospect", "new", "active", "lapsing", "lost")
ORDER_STATUSES = ("kept", "partly_returned", "returned")
COMPUTED_SEGMENTS = frozenset(
    [f"lifecycle:{name}" for name in LIFECYCLES]
    + [f"rfm:{name}" for name in RFM_CLASSES]
    + [f"clv:{name}" for name in CLV_TIERS]
)
OTHER = "other"
SCORES = ("promophile", "price_tier")
COUNTERS = ("order_count", "days_since_first_order", "days_since_last_order")


class NamedAudience(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One of an ordered list of audiences; `other` is the name of who is in none of them."""

    name: Annotated[str, Meta(min_length=1, max_length=64)]
    audience: "Audience"


class Audience(
    Struct,
    frozen=True,
    forbid_unknown_fields=True,
    omit_defaults=True,
    kw_only=True,
    rename={"not_": "not", "list_": "list", "is_": "is"},
):
    """A tree, or one node of it: exactly one predicate or one of `all`, `any`, `not`, `list`.

    A `list` is ordered: a visitor belongs to the first of its audiences they are in, and to `other` where they are in
    none; `is` says whom of them the node is about. Only an audience that is saved may leave it out, and is the list.

    A flat struct rather than a union, since the wire form is told apart by which key is there:
    `{"segment": "vip"}`, `{"score": "promophile", "at_least": 60}`, `{"not": {…}}`.
    `validate_audience` refuses nodes with none or several. A visitor of whom something is not known (no such
    attribute, no order yet) does not match a predicate about it, and matches its `not`.
    """

    all: Annotated[list["Audience"], Meta(min_length=1, max_length=32)] | None = None
    any: Annotated[list["Audience"], Meta(min_length=1, max_length=32)] | None = None
    not_: "Audience | None" = None
    list_: Annotated[list[NamedAudience], Meta(min_length=1, max_length=31)] | None = None  # with is
    segment: SegmentId | None = None
    attribute: AttributeName | None = None  # with one of equals, one_of, at_least, at_most
    score: Annotated[str, Meta(pattern=r"^(promophile|price_tier)(?![\s\S])")] | None = None  # 0..100
    rfm: Annotated[list[str], Meta(min_length=1, max_length=16)] | None = None
    clv_tier: Annotated[list[str], Meta(min_length=1, max_length=4)] | None = None
    loyalty_tier: Annotated[list[Annotated[str, Meta(max_length=256)]], Meta(min_length=1, max_length=16)] | None = None
    order_status: Annotated[list[str], Meta(min_length=1, max_length=4)] | None = None  # of the last order
    lifecycle: Annotated[list[str], Meta(min_length=1, max_length=8)] | None = None
    counter: Literal["order_count", "days_since_first_order", "days_since_last_order"] | None = None
    bought_product_within_days: Days | None = None  # with product_ids
    bought_category_within_days: Days | None = None  # with category_id
    bought_brand_within_days: Days | None = None  # with brand; without, the brand of the product bid on
    affinity_category: CategoryId | None = None  # with at_least (0..1)
    affinity_brand: Annotated[str, Meta(max_length=128)] | None = None  # with at_least (0..1)
    entered_segment: SegmentId | None = None  # with within_days, perhaps from_segment
    within_days: Days | None = None
    from_segment: SegmentId | None = None
    is_: Annotated[str, Meta(min_length=1, max_length=64)] | None = None
    product_ids: Annotated[list[ProductId], Meta(max_length=100)] | None = None
    category_id: CategoryId | None = None
    brand: Annotated[str, Meta(max_length=128)] | None = None
    equals: Attribute | None = None
    one_of: Annotated[list[Attribute], Meta(min_length=1, max_length=100)] | None = None
    at_least: float | None = None
    at_most: float | None = None


class SavedAudience(Struct, frozen=True, kw_only=True):
    """An audience an advertiser named and kept."""

    audience_id: str
    advertiser_id: str
    name: str
    audience: Audience
    status: Literal["active", "archived"]
    created_at: datetime
    updated_at: datetime
    change_seq: int


class Vocabulary(Struct, frozen=True, kw_only=True):
    """What an audience or pattern may name: of the names it mentions, those that are there."""

    segments: frozenset[str] = frozenset()
    categories: frozenset[str] = frozenset()
    attribute_types: dict[str, AttributeType] = {}
    special: SpecialCategories = SpecialCategories()


# Each predicate: the fields that must come with it, and those that may.
_RANGE = frozenset({"at_least", "at_most"})
_NOTHING: frozenset[str] = frozenset()
_CHOICE = frozenset({"is_"})
_PREDICATES: dict[str, tuple[frozenset[str], frozenset[str]]] = {
    "segment": (_NOTHING, _NOTHING),
    "attribute": (_NOTHING, _RANGE | {"equals", "one_of"}),
    "score": (_NOTHING, _RANGE),
    "rfm": (_NOTHING, _NOTHING),
    "clv_tier": (_NOTHING, _NOTHING),
    "loyalty_tier": (_NOTHING, _NOTHING),
    "lifecycle": (_NOTHING, _NOTHING),
    "order_status": (_NOTHING, _NOTHING),
    "counter": (_NOTHING, _RANGE),
    "bought_product_within_days": (frozenset({"product_ids"}), _NOTHING),
    "bought_category_within_days": (frozenset({"category_id"}), _NOTHING),
    "bought_brand_within_days": (_NOTHING, frozenset({"brand"})),
    "affinity_category": (frozenset({"at_least"}), _NOTHING),
    "affinity_brand": (frozenset({"at_least"}), _NOTHING),
    "entered_segment": (frozenset({"within_days"}), frozenset({"from_segment"})),
}
_NODES = ("all", "any", "not_", "list_")
_COMPANIONS = (
    "within_days",
    "from_segment",
    "is_",
    "product_ids",
    "category_id",
    "brand",
    "equals",
    "one_of",
    "at_least",
    "at_most",
)


def validate_audience(
    audience: Audience,
    vocabulary: Vocabulary,
    pointer: str = "",
    *,
    may_leave_brand_out: bool = False,
    may_be_list: bool = False,
) -> None:
    """Check the whole tree, node by node from the root, each against what exists.

    Args:
        audience: the tree.
        vocabulary: what exists of the names it mentions (`store.read_vocabulary`).
        pointer: JSON pointer of the tree in the request.
        may_leave_brand_out: the audience belongs to a bid, whose products' brand is meant where none is named.
        may_be_list: the audience is saved, and may be a whole list of audiences.

    Raises:
        AudienceRefused: with the pointer of the first offending node.
        SpecialCategoryRefused: likewise, where a name tells of a special category of personal data.
    """
    count = 0
    is_whole_list = may_be_list and audience.list_ is not None and audience.is_ is None

    def visit(node: Audience, at: str, depth: int) -> None:
        nonlocal count
        count += 1
        if depth > DEPTH_MAX or count > NODE_COUNT_MAX:
            message = f"an audience has at most {DEPTH_MAX} levels and {NODE_COUNT_MAX} nodes"
            raise AudienceRefused(message, at, code="audience_too_deep")
        _check_node(node, vocabulary, at, may_leave_brand_out)
        if node.list_ is not None and not (node is audience and is_whole_list):
            _check_choice(node, at)
        for name, children in (("all", node.all), ("any", node.any)):
            for index, child in enumerate(children or ()):
                visit(child, f"{at}/{name}/{index}", depth + 1)
        if node.not_ is not None:
            visit(node.not_, f"{at}/not", depth + 1)
        if node.list_ is not None:
            _check_names(node.list_, f"{at}/list")
            for index, named in enumerate(node.list_):
                visit(named.audience, f"{at}/list/{index}/audience", depth + 1)
        if node.all is not None:
            _check_together(node.all, f"{at}/all")

    visit(audience, pointer, 1)
    for one, at in _choices(audience, pointer) if is_whole_list else [(audience, pointer)]:
        if not Assumptions().assume(without_lists(one)):
            raise AudienceRefused("nobody can be in it", at, code="audience_contradictory")


def without_lists(audience: Audience) -> Audience:
    """Return the same audience with every list in it said by `all`, `any` and `not`."""
    if audience.list_ is not None:
        names = [named.name for named in audience.list_]
        trees = [without_lists(named.audience) for named in audience.list_]
        before = trees if audience.is_ == OTHER else trees[: names.index(audience.is_ or "")]
        own = [] if audience.is_ == OTHER else [trees[len(before)]]
        return Audience(all=[*own, *([Audience(not_=Audience(any=before))] if before else [])])
    if audience.all is not None:
        return Audience(all=[without_lists(child) for child in audience.all])
    if audience.any is not None:
        return Audience(any=[without_lists(child) for child in audience.any])
    return audience if audience.not_ is None else Audience(not_=without_lists(audience.not_))


def choices_of(audience: Audience) -> dict[str, Audience]:
    """Return, of a whole list, the audience of each of its names and of `other`, in their order; of others nothing."""
    if audience.list_ is None or audience.is_ is not None:
        return {}
    names = [*(named.name for named in audience.list_), OTHER]
    return {name: msgspec.structs.replace(audience, is_=name) for name in names}


def predicates_of(audience: Audience) -> Iterator[Audience]:
    """Yield every node of the tree that is a predicate."""
    for child in (*(audience.all or ()), *(audience.any or ())):
        yield from predicates_of(child)
    if audience.not_ is not None:
        yield from predicates_of(audience.not_)
    for named in audience.list_ or ():
        yield from predicates_of(named.audience)
    if all(getattr(audience, name) is None for name in _NODES):
        yield audience


def _choices(audience: Audience, pointer: str) -> Iterator[tuple[Audience, str]]:
    for index, (name, choice) in enumerate(choices_of(audience).items()):
        yield choice, pointer if name == OTHER else f"{pointer}/list/{index}"


def _check_names(named: list[NamedAudience], at: str) -> None:
    names = [one.name for one in named]
    for index, name in enumerate(names):
        if name == OTHER or name in names[:index]:
            message = f"each audience of a list has a name of its own, and {OTHER!r} is who is in none, was {name!r}"
            raise AudienceRefused(message, f"{at}/{index}/name", code="audience_ambiguous")


def _check_choice(node: Audience, at: str) -> None:
    if node.is_ is None:
        raise AudienceRefused("list needs is: which of its audiences is meant", at, code="audience_incomplete")
    names = [named.name for named in node.list_ or ()]
    if node.is_ != OTHER and node.is_ not in names:
        message = f"is must be one of {', '.join(names)} or {OTHER}, was {node.is_!r}"
        raise AudienceRefused(message, f"{at}/is", code="audience_name_unknown")


def _check_node(node: Audience, vocabulary: Vocabulary, at: str, may_leave_brand_out: bool) -> None:
    heads = [name for name in (*_NODES, *_PREDICATES) if getattr(node, name) is not None]
    if not heads:
        message = "a node says one thing: all, any, not, list, " + ", ".join(_PREDICATES)
        raise AudienceRefused(message, at, code="audience_empty")
    if len(heads) > 1:
        names = ", ".join(name.rstrip("_") for name in heads)
        raise AudienceRefused(f"a node says one thing, this one says {names}", at, code="audience_ambiguous")
    head = heads[0]
    required, optional = _PREDICATES.get(head, (_NOTHING, _CHOICE if head == "list_" else _NOTHING))
    for name in _COMPANIONS:
        is_given = getattr(node, name) is not None
        if is_given and name not in required | optional:
            message, pointer = f"{name.rstrip('_')} does not go with {head.rstrip('_')}", f"{at}/{name.rstrip('_')}"
            raise AudienceRefused(message, pointer, code="audience_ambiguous")
        if name in required and not is_given:
            raise AudienceRefused(f"{head} needs {name}", at, code="audience_incomplete")
    _check_range(node, head, at)
    _CHECKS.get(head, _accept)(node, vocabulary, at)
    if head == "bought_brand_within_days" and node.brand is None and not may_leave_brand_out:
        message = "name the brand: only a bid's own audience may mean the brand of its products"
        raise AudienceRefused(message, at, code="audience_incomplete")


def _check_range(node: Audience, head: str, at: str) -> None:
    if head in ("score", "counter") and node.at_least is None and node.at_most is None:
        raise AudienceRefused(f"{head} needs at_least or at_most", at, code="audience_incomplete")
    if node.at_least is not None and node.at_most is not None and node.at_least > node.at_most:
        message = f"at_least must be at most at_most, was {node.at_least} > {node.at_most}"
        raise AudienceRefused(message, at, code="audience_contradictory")
    high = {"score": 100.0, "affinity_category": 1.0, "affinity_brand": 1.0, "counter": float("inf")}.get(head)
    for name in ("at_least", "at_most"):
        bound = getattr(node, name)
        if high is not None and bound is not None and not 0 <= bound <= high:
            limits = "0 or more" if high == float("inf") else f"0 to {high:g}"
            message = f"{name} of {head} must be {limits}, was {bound:g}"
            raise AudienceRefused(message, f"{at}/{name}", code="audience_contradictory")


def _accept(_node: Audience, _vocabulary: Vocabulary, _at: str) -> None:
    """Have nothing to say."""


def _check_segment(node: Audience, vocabulary: Vocabulary, at: str) -> None:
    assert node.segment is not None
    vocabulary.special.check(node.segment, f"{at}/segment")
    if node.segment not in vocabulary.segments:
        raise AudienceRefused(f"there is no segment {node.segment!r}", f"{at}/segment", code="segment_unknown")


def _check_entered(node: Audience, vocabulary: Vocabulary, at: str) -> None:
    for name in ("entered_segment", "from_segment"):
        segment_id = getattr(node, name)
        if segment_id is None:
            continue
        vocabulary.special.check(segment_id, f"{at}/{name}")
        if segment_id not in vocabulary.segments and segment_id not in COMPUTED_SEGMENTS:
            message = f"there is no segment {segment_id!r}, neither of the CRM nor computed, as lifecycle:lapsing is"
            raise AudienceRefused(message, f"{at}/{name}", code="segment_unknown")
    if node.from_segment == node.entered_segment:
        message = "who comes into a segment comes from another"
        raise AudienceRefused(message, f"{at}/from_segment", code="audience_contradictory")


def _check_loyalty_tier(node: Audience, vocabulary: Vocabulary, at: str) -> None:
    kind = vocabulary.attribute_types.get(LOYALTY_ATTRIBUTE)
    if kind is None:
        message = f"no profile has an attribute {LOYALTY_ATTRIBUTE!r}"
        raise AudienceRefused(message, f"{at}/loyalty_tier", code="attribute_unknown")
    if kind != "str":
        message = f"attribute {LOYALTY_ATTRIBUTE!r} is {kind}, was compared with str"
        raise AudienceRefused(message, f"{at}/loyalty_tier", code="attribute_type_differs")


def _check_attribute(node: Audience, vocabulary: Vocabulary, at: str) -> None:
    assert node.attribute is not None
    vocabulary.special.check(node.attribute, f"{at}/attribute")
    kind = vocabulary.attribute_types.get(node.attribute)
    if kind is None:
        message = f"no profile has an attribute {node.attribute!r}"
        raise AudienceRefused(message, f"{at}/attribute", code="attribute_unknown")
    has_range = node.at_least is not None or node.at_most is not None
    if sum([node.equals is not None, node.one_of is not None, has_range]) != 1:
        message = "attribute needs one of equals, one_of, and at_least or at_most"
        raise AudienceRefused(message, at, code="audience_incomplete")
    if has_range and kind not in ("int", "float"):
        message = f"only numbers are more or less; attribute {node.attribute!r} is {kind}"
        raise AudienceRefused(message, at, code="attribute_type_differs")
    given = [("equals", node.equals)] if node.equals is not None else []
    given += [(f"one_of/{index}", value) for index, value in enumerate(node.one_of or ())]
    for name, value in given:
        if attribute_type(value) not in (kind, "int" if kind == "float" else kind):
            message = f"attribute {node.attribute!r} is {kind}, was compared with {attribute_type(value)}"
            raise AudienceRefused(message, f"{at}/{name}", code="attribute_type_differs")
        if isinstance(value, str) and vocabulary.special.is_value(value):
            vocabulary.special.check(value, f"{at}/{name}")


def _check_words(name: str, allowed: tuple[str, ...], code: str) -> Callable[[Audience, Vocabulary, str], None]:
    def check(node: Audience, _vocabulary: Vocabulary, at: str) -> None:
        for index, word in enumerate(getattr(node, name)):
            if word not in allowed:
                message = f"must be one of {', '.join(allowed)}, was {word!r}"
                raise AudienceRefused(message, f"{at}/{name}/{index}", code=code)

    return check


def _check_category(name: str) -> Callable[[Audience, Vocabulary, str], None]:
    def check(node: Audience, vocabulary: Vocabulary, at: str) -> None:
        if getattr(node, name) not in vocabulary.categories:
            message = f"there is no category {getattr(node, name)!r}"
            raise AudienceRefused(message, f"{at}/{name}", code="category_unknown")

    return check


def _check_products(node: Audience, _vocabulary: Vocabulary, at: str) -> None:
    if not node.product_ids:
        raise AudienceRefused("name at least one product", f"{at}/product_ids", code="audience_incomplete")


_CHECKS: dict[str, Callable[[Audience, Vocabulary, str], None]] = {
    "segment": _check_segment,
    "attribute": _check_attribute,
    "rfm": _check_words("rfm", RFM_CLASSES, "rfm_class_unknown"),
    "clv_tier": _check_words("clv_tier", CLV_TIERS, "clv_tier_unknown"),
    "loyalty_tier": _check_loyalty_tier,
    "lifecycle": _check_words("lifecycle", LIFECYCLES, "lifecycle_unknown"),
    "order_status": _check_words("order_status", ORDER_STATUSES, "order_status_unknown"),
    "entered_segment": _check_entered,
    "bought_product_within_days": _check_products,
    "bought_category_within_days": _check_category("category_id"),
    "affinity_category": _check_category("affinity_category"),
}


def _check_together(children: list[Audience], at: str) -> None:
    """Refuse the first of an `all` that can never hold together with those before it."""
    certain = Assumptions()
    for index, child in enumerate(children):
        if not certain.assume(without_lists(child)):
            message = "it can never hold together with what stands before it"
            raise AudienceRefused(message, f"{at}/{index}", code="audience_contradictory")
