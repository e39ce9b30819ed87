"""Attributes the merchant derives from the catalogue: by targets, or by a regular expression over a text of a product.

They become columns beside those of the feed when a snapshot is built, so that rules and the visitor's filters ask for
them alike. Expressions are matched in time linear in the text, whatever they say.

Source: Cox, "Regular Expression Matching Can Be Simple And Fast", 2007, and RE2, which implements it.
"""

from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Annotated, Any, Literal

from msgspec import Meta, Struct

from affinity.catalog import Attribute, AttributeName, AttributeType, Product, attribute_type
from affinity.navigation import Moment
from affinity.product_target import CatalogueColumns, Target, VirtualColumns, target_mask
from affinity.signals import NO_SIGNALS, Signals

if TYPE_CHECKING:
    import re2

EXPRESSION_BYTES_MAX = 1 << 20  # of memory a compiled expression may take
KNOWN_TEXT_COUNT_MAX = 500_000  # of one expression
Text = Annotated[str, Meta(max_length=256, pattern=r"^[^\x00]*(?![\s\S])")]
Value = bool | int | float | Text


class Case(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The value of every product of a target."""

    target: Target
    value: Value


class Derivation(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """The value of the first case a product is of, or `otherwise`; with neither, the product has no value."""

    cases: Annotated[list[Case], Meta(min_length=1, max_length=50)]
    otherwise: Value | None = None


class Expression(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """A regular expression looked for anywhere in a text of the product.

    Attributes:
        field: `title`, `brand`, `category_id`, `product_id` or a custom attribute that is text.
        expression: in RE2's syntax: no look-around, no reference to what was matched before.
        group: None: whether it is found, true or false. Else what this group matched, 0 being everything; a product
            in which it matched nothing has no value.
        ignore_case: whether `A` matches `a`.
    """

    field: Annotated[str, Meta(min_length=1, max_length=64)]
    expression: Annotated[str, Meta(min_length=1, max_length=500)]
    group: Annotated[int, Meta(ge=0, le=20)] | None = None
    ignore_case: bool = True


class VirtualAttributeDraft(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Body of `POST /v1/virtual-attributes`: a name, and exactly one of the others."""

    name: AttributeName
    derived: Derivation | None = None
    matched: Expression | None = None


class VirtualAttribute(Struct, frozen=True, kw_only=True):
    """A virtual attribute as it stands; `type` is of its values, and stays."""

    virtual_attribute_id: str
    name: str
    type: AttributeType
    derived: Derivation | None
    matched: Expression | None
    status: Literal["active", "archived"]
    created_at: Moment
    updated_at: Moment
    change_seq: int


def compile_expression(wanted: Expression) -> "re2._Regexp":
    """Return the expression ready to be matched.

    Raises:
        ValueError: it is none, or would take too much memory; the message says where.
    """
    import re2  # for shops that have expressions alone

    options = re2.Options()
    options.log_errors = False
    options.case_sensitive = not wanted.ignore_case
    options.max_mem = EXPRESSION_BYTES_MAX
    try:
        return re2.compile(wanted.expression, options)
    except re2.error as refusal:
        [said] = refusal.args
        raise ValueError(said.decode(errors="replace") if isinstance(said, bytes) else str(said)) from None


def type_of(values: Iterable[Attribute]) -> AttributeType | None:
    """Return the type values share, whole numbers among others counting as them; None where they share none."""
    types = {attribute_type(value) for value in values}
    if types == {"int", "float"}:
        return "float"
    return types.pop() if len(types) == 1 else None


def values_of(
    derived: Derivation | None,
    matched: Expression | None,
    products: Sequence[Product],
    read_at_ms: int,
    signals: Signals = NO_SIGNALS,
) -> list[Attribute | None]:
    """Return the attribute's value of every product; None where it has none."""
    columns = CatalogueColumns(products, read_at_ms, signals=signals)
    if matched is not None:
        return _matches(matched, columns)
    assert derived is not None
    values: list[Attribute | None] = [derived.otherwise] * len(products)
    for case in reversed(derived.cases):
        for row in target_mask(case.target, columns).nonzero()[0].tolist():
            values[row] = case.value
    return values


def virtual_columns(
    attributes: Sequence[VirtualAttribute],
    products: Sequence[Product],
    read_at_ms: int,
    signals: Signals = NO_SIGNALS,
) -> VirtualColumns:
    """Return the values of every product, None where it has none, by the attribute's name."""
    columns: VirtualColumns = {}
    for attribute in attributes:
        values = values_of(attribute.derived, attribute.matched, products, read_at_ms, signals)
        if attribute.type == "float":
            values = [None if value is None else float(value) for value in values]
        columns[attribute.name] = values
    return columns


class _Matcher:
    """An expression, and what it said of each text before: texts seldom change between two snapshots."""

    def __init__(self, wanted: Expression) -> None:
        self._search: Callable[[str], Any] = compile_expression(wanted).search
        self._group = wanted.group
        self._known: dict[str, Attribute | None] = {}

    def __call__(self, text: Attribute | None) -> Attribute | None:
        """Return the attribute's value of a product with that text."""
        if not isinstance(text, str):
            return False if self._group is None else None
        if text not in self._known:
            if len(self._known) >= KNOWN_TEXT_COUNT_MAX:
                self._known.clear()
            match = self._search(text)
            if self._group is None:
                self._known[text] = match is not None
            else:
                self._known[text] = None if match is None else match.group(self._group)
        return self._known[text]


@lru_cache(maxsize=64)
def _matcher_of(field: str, expression: str, group: int | None, ignore_case: bool) -> _Matcher:
    return _Matcher(Expression(field=field, expression=expression, group=group, ignore_case=ignore_case))


def _matches(wanted: Expression, columns: CatalogueColumns) -> list[Attribute | None]:
    matcher = _matcher_of(wanted.field, wanted.expression, wanted.group, wanted.ignore_case)
    return [matcher(text) for text in columns.values(wanted.field)]
