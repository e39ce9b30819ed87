"""Virtual attributes: what the merchant derives from the catalogue, for rules, bids, patterns and filters to ask."""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct
from sqlalchemy.engine import Connection

from affinity.catalog import Attribute, AttributeType, ProductId
from affinity.product_target import RULE_FIELDS
from affinity.signals import NO_SIGNALS
from affinity.store import (
    get_product,
    list_products,
    next_change_seq,
    pattern_asking,
    read_attribute_types,
    read_signals,
)
from auction.store import (
    bid_asking,
    get_virtual_attribute,
    insert_virtual_attribute,
    list_rules,
    list_virtual_attributes,
    update_virtual_attribute,
    virtual_attribute_types,
)
from auction.virtual_attribute import (
    Derivation,
    Expression,
    VirtualAttribute,
    VirtualAttributeDraft,
    compile_expression,
    type_of,
    values_of,
)
from bidder_api.call import Answer, Call, check_match, etag
from bidder_api.errors import Conflict, Invalid, NotFound
from bidder_api.resources import PageQuery, given, make_id, moment, page_of, patch_type, read_page
from bidder_api.rules import RULE_COUNT_MAX, check_target

PREVIEWED_COUNT = 20
TEXT_FIELDS = frozenset({"title", "brand", "category_id", "product_id"})
VirtualAttributePatch = patch_type(VirtualAttributeDraft, "VirtualAttributePatch", leave_out=["name"])
VirtualAttributePage = page_of("VirtualAttribute", VirtualAttribute)


class VirtualAttributeQuery(PageQuery, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Query of the list; archived ones are listed only when asked for by status."""

    status: Literal["active", "archived"] | None = None


class AttributePreviewRequest(VirtualAttributeDraft, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Body of `POST /v1/virtual-attributes/preview`: an attribute, and of which products; left out, the first 20."""

    product_ids: Annotated[list[ProductId], Meta(min_length=1, max_length=PREVIEWED_COUNT)] | None = None


class PreviewedProduct(Struct, frozen=True):
    """What the attribute would be of one product; null where it has no value."""

    product_id: str
    title: str
    value: Attribute | None


class AttributePreview(Struct, frozen=True):
    """What the attribute would be."""

    type: AttributeType
    products: list[PreviewedProduct]


def create_attribute(connection: Connection, call: Call) -> Answer:
    """Make a virtual attribute."""
    draft: VirtualAttributeDraft = call.body
    now = moment(call.now_ms)
    change_seq = next_change_seq(connection, call.retailer_id)
    kind = _check(connection, call.retailer_id, draft)
    attribute = VirtualAttribute(
        virtual_attribute_id=make_id("vat", call),
        name=draft.name,
        type=kind,
        derived=draft.derived,
        matched=draft.matched,
        status="active",
        created_at=now,
        updated_at=now,
        change_seq=change_seq,
    )
    insert_virtual_attribute(connection, call.retailer_id, attribute)
    call.log("create", "virtual_attribute", attribute.virtual_attribute_id, after=attribute)
    location = f"/v1/virtual-attributes/{attribute.virtual_attribute_id}"
    return Answer(body=attribute, headers={"ETag": etag(attribute.change_seq), "Location": location})


def read_attribute(connection: Connection, call: Call) -> Answer:
    """Return one virtual attribute."""
    attribute = _find(connection, call)
    return Answer(body=attribute, headers={"ETag": etag(attribute.change_seq)})


def list_all(connection: Connection, call: Call) -> Answer:
    """Return a page of virtual attributes."""
    query: VirtualAttributeQuery = call.query

    def read(after: str | None, limit: int) -> list[VirtualAttribute]:
        return list_virtual_attributes(connection, call.retailer_id, after, limit, status=query.status)

    return Answer(body=read_page(query, read, lambda attribute: attribute.virtual_attribute_id))


def change_attribute(connection: Connection, call: Call) -> Answer:
    """Change what a virtual attribute is derived from; its name and type stay."""
    attribute = _find(connection, call)
    check_match(call, attribute.change_seq)
    if attribute.status == "archived":
        raise Conflict("virtual_attribute_archived", "an archived virtual attribute cannot be changed")
    return _store(connection, call, attribute, "update", given(call.body))


def archive_attribute(connection: Connection, call: Call) -> Answer:
    """Archive a virtual attribute nothing asks for. Archiving it again changes nothing."""
    attribute = _find(connection, call)
    check_match(call, attribute.change_seq)
    if attribute.status != "archived":
        asking = _what_asks(connection, call.retailer_id, attribute.name)
        if asking is not None:
            raise Conflict("virtual_attribute_in_use", f"{asking} asks for {attribute.name}: archive it first")
        _store(connection, call, attribute, "archive", {"status": "archived"})
    return Answer()


def _what_asks(connection: Connection, retailer_id: str, name: str) -> str | None:
    """Return the first rule, saved navigation pattern or bid that asks for an attribute, in words."""
    for rule in list_rules(connection, retailer_id, None, RULE_COUNT_MAX):
        if rule.target is not None and name in rule.target.fields:
            return f"rule {rule.rule_id} ({rule.name})"
    saved = pattern_asking(connection, retailer_id, name)
    if saved is not None:
        return f"navigation pattern {saved.pattern_id} ({saved.name}) of {saved.advertiser_id}"
    bid = bid_asking(connection, retailer_id, name)
    if bid is None:
        return None
    where = "" if bid.product_target is not None and name in bid.product_target.fields else "the navigation pattern of "
    return f"{where}bid {bid.bid_id} of {bid.advertiser_id}"


def preview(connection: Connection, call: Call) -> Answer:
    """Return what an attribute would be of some products; nothing is kept."""
    body: AttributePreviewRequest = call.body
    kind = _check(connection, call.retailer_id, body)
    products = []
    if body.product_ids is None:
        products = list_products(connection, call.retailer_id, None, PREVIEWED_COUNT)
    for row, product_id in enumerate(body.product_ids or ()):
        product = get_product(connection, call.retailer_id, product_id)
        if product is None:
            raise Invalid("product_unknown", f"there is no product {product_id!r}", f"/product_ids/{row}")
        products.append(product)
    signals = read_signals(connection, call.retailer_id) or NO_SIGNALS
    values = values_of(body.derived, body.matched, products, call.now_ms, signals)
    shown = [
        PreviewedProduct(product.product_id, product.title, value)
        for product, value in zip(products, values, strict=True)
    ]
    return Answer(body=AttributePreview(kind, shown))


def _check(connection: Connection, retailer_id: str, draft: VirtualAttributeDraft) -> AttributeType:
    """Check a new attribute, in the order of the fields; return the type of its values.

    Raises:
        Invalid: the name is a product's field; see also `_type_checked`.
        Conflict: another virtual attribute has the name.
    """
    own = read_attribute_types(connection, retailer_id, "product")
    if draft.name in RULE_FIELDS or draft.name in own:
        raise Invalid("name_taken", f"products have a field {draft.name!r} of their own", "/name")
    if draft.name in virtual_attribute_types(connection, retailer_id):
        raise Conflict("name_in_use", f"there is a virtual attribute {draft.name!r} already", "/name")
    return _type_checked(draft.derived, draft.matched, own)


def _type_checked(
    derived: Derivation | None, matched: Expression | None, own: dict[str, AttributeType]
) -> AttributeType:
    """Return the type of the values.

    Raises:
        Invalid: neither derived nor matched, or both; a target that asks what no product says; values of several
            types; an expression that is none, over a field that is no text, or without that group.
    """
    if (derived is None) == (matched is None):
        raise Invalid("virtual_attribute_ambiguous", "give exactly one of derived and matched", "")
    if matched is not None:
        return _check_expression(matched, own)
    assert derived is not None
    for row, case in enumerate(derived.cases):
        check_target(case.target, own, f"/derived/cases/{row}/target")
    values = [case.value for case in derived.cases]
    kind = type_of(values if derived.otherwise is None else [*values, derived.otherwise])
    if kind is None:
        raise Invalid("values_differ", "all values must be of one type", "/derived")
    return kind


def _check_expression(matched: Expression, own: dict[str, AttributeType]) -> AttributeType:
    if matched.field not in TEXT_FIELDS and own.get(matched.field) != "str":
        if matched.field in RULE_FIELDS or matched.field in own:
            raise Invalid("field_type_differs", f"{matched.field} is not text", "/matched/field")
        raise Invalid("field_unknown", f"no product has a field {matched.field!r}", "/matched/field")
    try:
        compiled = compile_expression(matched)
    except ValueError as refusal:
        raise Invalid("expression_invalid", f"not an expression: {refusal}", "/matched/expression") from None
    if matched.group is None:
        return "bool"
    if matched.group > compiled.groups:
        message = f"the expression has {compiled.groups} groups, group was {matched.group}"
        raise Invalid("group_unknown", message, "/matched/group")
    return "str"


def _find(connection: Connection, call: Call) -> VirtualAttribute:
    attribute = get_virtual_attribute(connection, call.retailer_id, call.path["virtual_attribute_id"])
    if attribute is None:
        raise NotFound("virtual_attribute", call.path["virtual_attribute_id"])
    return attribute


def _store(
    connection: Connection, call: Call, before: VirtualAttribute, action: str, changed: dict[str, object]
) -> Answer:
    after = msgspec.structs.replace(
        before,
        **changed,
        updated_at=moment(call.now_ms),
        change_seq=next_change_seq(connection, call.retailer_id),
    )
    if action == "update":
        own = read_attribute_types(connection, call.retailer_id, "product")
        kind = _type_checked(after.derived, after.matched, own)
        if kind != before.type:
            raise Invalid("type_fixed", f"{before.name} must stay {before.type}, would be {kind}", "")
    update_virtual_attribute(connection, call.retailer_id, after)
    call.log(action, "virtual_attribute", after.virtual_attribute_id, before=before, after=after)
    return Answer(body=after, headers={"ETag": etag(after.change_seq)})
