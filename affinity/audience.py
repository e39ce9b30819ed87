"""Whom a bid is for: typed trees over what is known of a visitor, compiled to one bit per audience.

Holds the tree and its checks; `targets.py` compiles it.
"""

from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from affinity.catalog import Attribute, AttributeName, AttributeType, CategoryId, ProductId, attribute_type
from affinity.errors import AudienceRefused

SegmentId = Annotated[str, Meta(min_length=1, max_length=64, pattern=r"^[^\x00-\x1f\x7f]+(?![\s\S])")]
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
SCORES = ("promophile", "price_tier")
COUNTERS = ("order_count", "days_since_first_order", "days_since_last_order")


class Audience(
    Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True, rename={"not_": "not"}
):
    """A tree, or one node of it: exactly one predicate or one of `all`, `any`, `not`.

    A flat struct rather than a union, since the wire form is told apart by which key is there:
    `{"segment": "vip"}`, `{"score": "promophile", "at_least": 60}`, `{"not": {…}}`.
    `validate_audience` refuses nodes with none or several. A visitor of whom something is not known (no such
    attribute, no order yet) does not match a predicate about it, and matches its `not`.
    """

    all: Annotated[list["Audience"], Meta(min_length=1, max_length=32)] | None = None
    any: Annotated[list["Audience"], Meta(min_length=1, max_length=32)] | None = None
    not_: "Audience | None" = None
    segment: SegmentId | None = None
    attribute: AttributeName | None = None  # with one of equals, one_of, at_least, at_most
    score: Annotated[str, Meta(pattern=r"^(promophile|price_tier)(?![\s\S])")] | None = None  # 0..100
    rfm: Annotated[list[str], Meta(min_length=1, max_length=16)] | None = None
    lifecycle: Annotated[list[str], Meta(min_length=1, max_length=8)] | None = None
    counter: Literal["order_count", "days_since_first_order", "days_since_last_order"] | None = None
    bought_product_within_days: Days | None = None  # with product_ids
    bought_category_within_days: Days | None = None  # with category_id
    bought_brand_within_days: Days | None = None  # with brand; without, the brand of the product bid on
    affinity_category: CategoryId | None = None  # with at_least (0..1)
    affinity_brand: Annotated[str, Meta(max_length=128)] | None = None  # with at_least (0..1)
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


# Each predicate: the fields that must come with it, and those that may.
_RANGE = frozenset({"at_least", "at_most"})
_NOTHING: frozenset[str] = frozenset()
_PREDICATES: dict[str, tuple[frozenset[str], frozenset[str]]] = {
    "segment": (_NOTHING, _NOTHING),
    "attribute": (_NOTHING, _RANGE | {"equals", "one_of"}),
    "score": (_NOTHING, _RANGE),
    "rfm": (_NOTHING, _NOTHING),
    "lifecycle": (_NOTHING, _NOTHING),
    "counter": (_NOTHING, _RANGE),
    "bought_product_within_days": (frozenset({"product_ids"}), _NOTHING),
    "bought_category_within_days": (frozenset({"category_id"}), _NOTHING),
    "bought_brand_within_days": (_NOTHING, frozenset({"brand"})),
    "affinity_category": (frozenset({"at_least"}), _NOTHING),
    "affinity_brand": (frozenset({"at_least"}), _NOTHING),
}
_NODES = ("all", "any", "not_")
_COMPANIONS = ("product_ids", "category_id", "brand", "equals", "one_of", "at_least", "at_most")
_encode = msgspec.json.Encoder(order="sorted").encode


def validate_audience(
    audience: Audience, vocabulary: Vocabulary, pointer: str = "", *, may_leave_brand_out: bool = False
) -> None:
    """Check the whole tree, node by node from the root, each against what exists.

    Args:
        audience: the tree.
        vocabulary: what exists of the names it mentions (`store.read_vocabulary`).
        pointer: JSON pointer of the tree in the request.
        may_leave_brand_out: the audience belongs to a bid, whose products' brand is meant where none is named.

    Raises:
        AudienceRefused: with the pointer of the first offending node.
    """
    count = 0

    def visit(node: Audience, at: str, depth: int) -> None:
        nonlocal count
        count += 1
        if depth > DEPTH_MAX or count > NODE_COUNT_MAX:
            message = f"an audience has at most {DEPTH_MAX} levels and {NODE_COUNT_MAX} nodes"
            raise AudienceRefused(message, at, code="audience_too_deep")
        _check_node(node, vocabulary, at, may_leave_brand_out)
        for name, children in (("all", node.all), ("any", node.any)):
            for index, child in enumerate(children or ()):
                visit(child, f"{at}/{name}/{index}", depth + 1)
        if node.not_ is not None:
            visit(node.not_, f"{at}/not", depth + 1)
        if node.all is not None:
            _check_all(node.all, f"{at}/all")

    visit(audience, pointer, 1)


def predicates_of(audience: Audience) -> Iterator[Audience]:
    """Yield every node of the tree that is a predicate."""
    for child in (*(audience.all or ()), *(audience.any or ())):
        yield from predicates_of(child)
    if audience.not_ is not None:
        yield from predicates_of(audience.not_)
    if audience.all is None and audience.any is None and audience.not_ is None:
        yield audience


def _check_node(node: Audience, vocabulary: Vocabulary, at: str, may_leave_brand_out: bool) -> None:
    heads = [name for name in (*_NODES, *_PREDICATES) if getattr(node, name) is not None]
    if not heads:
        message = "a node says one thing: all, any, not, " + ", ".join(_PREDICATES)
        raise AudienceRefused(message, at, code="audience_empty")
    if len(heads) > 1:
        names = ", ".join(name.rstrip("_") for name in heads)
        raise AudienceRefused(f"a node says one thing, this one says {names}", at, code="audience_ambiguous")
    head = heads[0]
    required, optional = _PREDICATES.get(head, (_NOTHING, _NOTHING))
    for name in _COMPANIONS:
        is_given = getattr(node, name) is not None
        if is_given and name not in required | optional:
            raise AudienceRefused(f"{name} does not go with {head}", f"{at}/{name}", code="audience_ambiguous")
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
    high = {"score": 100.0, "affinity_category": 1.0, "affinity_brand": 1.0}.get(head)
    for name in ("at_least", "at_most"):
        bound = getattr(node, name)
        if high is not None and bound is not None and not 0 <= bound <= high:
            message = f"{name} of {head} must be 0 to {high:g}, was {bound:g}"
            raise AudienceRefused(message, f"{at}/{name}", code="audience_contradictory")


def _accept(_node: Audience, _vocabulary: Vocabulary, _at: str) -> None:
    """Have nothing to say."""


def _check_segment(node: Audience, vocabulary: Vocabulary, at: str) -> None:
    if node.segment not in vocabulary.segments:
        raise AudienceRefused(f"there is no segment {node.segment!r}", f"{at}/segment", code="segment_unknown")


def _check_attribute(node: Audience, vocabulary: Vocabulary, at: str) -> None:
    assert node.attribute is not None
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
    "lifecycle": _check_words("lifecycle", LIFECYCLES, "lifecycle_unknown"),
    "bought_product_within_days": _check_products,
    "bought_category_within_days": _check_category("category_id"),
    "affinity_category": _check_category("affinity_category"),
}


def _check_all(children: list[Audience], at: str) -> None:
    """Refuse what can never hold together: a node and its `not`, ranges or lists that do not meet."""
    encoded = [_encode(child) for child in children]
    for index, child in enumerate(children):
        if child.not_ is not None and _encode(child.not_) in encoded:
            message = "it must hold and not hold at once"
            raise AudienceRefused(message, f"{at}/{index}", code="audience_contradictory")
    ranges: dict[tuple[str, str], tuple[float, float]] = {}
    allowed: dict[tuple[str, str], set[Any]] = {}
    for index, child in enumerate(children):
        for subject in ("score", "counter", "attribute", "affinity_category", "affinity_brand"):
            named = getattr(child, subject)
            if named is None or (child.at_least is None and child.at_most is None):
                continue
            low, high = ranges.get((subject, named), (float("-inf"), float("inf")))
            low = max(low, child.at_least if child.at_least is not None else low)
            high = min(high, child.at_most if child.at_most is not None else high)
            ranges[subject, named] = (low, high)
            if low > high:
                message = f"{named} cannot be at least {low:g} and at most {high:g}"
                raise AudienceRefused(message, f"{at}/{index}", code="audience_contradictory")
        for key, values in _lists(child):
            allowed[key] = allowed.get(key, values) & values
            if not allowed[key]:
                message = f"no {key[1]} can be both: the lists have nothing in common"
                raise AudienceRefused(message, f"{at}/{index}", code="audience_contradictory")


def _lists(node: Audience) -> Iterator[tuple[tuple[str, str], set[Any]]]:
    if node.rfm is not None:
        yield ("rfm", "rfm class"), set(node.rfm)
    if node.lifecycle is not None:
        yield ("lifecycle", "lifecycle"), set(node.lifecycle)
    if node.attribute is not None and node.equals is not None:
        yield ("attribute", node.attribute), {node.equals}
    if node.attribute is not None and node.one_of is not None:
        yield ("attribute", node.attribute), set(node.one_of)
