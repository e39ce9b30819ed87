"""Tables of the catalogue and what became of it, profiles, links, saved audiences and patterns; the change sequence.

What the CRM says of a visitor is a profile, what we compute of one a computed profile.

Holds the SQL of this package and nothing else; nothing on the slot path imports it. Every function takes an open
connection and the retailer's id; who calls decides what one transaction is. Visitors are here as pseudonyms only.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, TypeVar

import msgspec
import sqlalchemy as sa
from msgspec import Struct
from sqlalchemy.dialects.postgresql import insert as postgres_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert
from sqlalchemy.engine import Connection

from affinity.audience import Audience, SavedAudience, Vocabulary, predicates_of
from affinity.catalog import (
    Attribute,
    AttributeType,
    Product,
    ProductChange,
    attribute_type,
    category_and_ancestors,
    change_product,
)
from affinity.computed import CustomerScale
from affinity.customers import ComputedProfile, SegmentEntry, entries_between
from affinity.errors import AttributeTypeDiffers
from affinity.pattern import NavigationPattern, SavedPattern, product_fields_of
from affinity.profile import ProfileDraft
from affinity.signals import Signals
from affinity.special import DEFAULT_TERMS, SpecialCategories, special_categories

T = TypeVar("T")

metadata = sa.MetaData()

DEPLOYMENT = "deployment"
VISITORS = "visitors"
ERASURES = "erasures"
NO_PROFILE = ProfileDraft()
PARAMETER_COUNT_MAX = 500  # ids named in one statement

change_sequence = sa.Table(
    "change_sequence",
    metadata,
    sa.Column("retailer_id", sa.Text, primary_key=True),
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("value", sa.BigInteger, nullable=False),
)

advertisers = sa.Table(
    "advertisers",
    metadata,
    sa.Column("retailer_id", sa.Text, primary_key=True),
    sa.Column("advertiser_id", sa.Text, primary_key=True),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("created_at_ms", sa.BigInteger, nullable=False),
)

products = sa.Table(
    "products",
    metadata,
    sa.Column("retailer_id", sa.Text, primary_key=True),
    sa.Column("product_id", sa.Text, primary_key=True),
    sa.Column("body", sa.Text, nullable=False),
    sa.Column("change_seq", sa.BigInteger, nullable=False),
    sa.Index("products_by_change", "retailer_id", "change_seq"),
)

product_advertisers = sa.Table(
    "product_advertisers",
    metadata,
    sa.Column("retailer_id", sa.Text, primary_key=True),
    sa.Column("product_id", sa.Text, primary_key=True),
    sa.Column("advertiser_id", sa.Text, primary_key=True),
    sa.Index("product_advertisers_by_advertiser", "retailer_id", "advertiser_id", "product_id"),
)

categories = sa.Table(
    "categories",
    metadata,
    sa.Column("retailer_id", sa.Text, primary_key=True),
    sa.Column("category_id", sa.Text, primary_key=True),
)

attribute_types = sa.Table(
    "attribute_types",
    metadata,
    sa.Column("retailer_id", sa.Text, primary_key=True),
    sa.Column("scope", sa.Text, primary_key=True),
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("type", sa.Text, nullable=False),
)

segments = sa.Table(
    "segments",
    metadata,
    sa.Column("retailer_id", sa.Text, primary_key=True),
    sa.Column("segment_id", sa.Text, primary_key=True),
)

profiles = sa.Table(
    "profiles",
    metadata,
    sa.Column("retailer_id", sa.Text, primary_key=True),
    sa.Column("pseudonym", sa.LargeBinary, primary_key=True),
    sa.Column("body", sa.Text, nullable=False),
    sa.Column("updated_at_ms", sa.BigInteger, nullable=False),
    sa.Column("change_seq", sa.BigInteger, nullable=False),
    sa.Index("profiles_by_change", "retailer_id", "change_seq"),
)

customer_scales = sa.Table(
    "customer_scales",
    metadata,
    sa.Column("retailer_id", sa.Text, primary_key=True),
    sa.Column("body", sa.Text, nullable=False),
    sa.Column("computed_at_ms", sa.BigInteger, nullable=False),
)

computed_profiles = sa.Table(
    "computed_profiles",
    metadata,
    sa.Column("retailer_id", sa.Text, primary_key=True),
    sa.Column("pseudonym", sa.LargeBinary, primary_key=True),
    sa.Column("body", sa.Text, nullable=False),
    sa.Column("computed_at_ms", sa.BigInteger, nullable=False),
    sa.Column("change_seq", sa.BigInteger, nullable=False),
    sa.Index("computed_profiles_by_change", "retailer_id", "change_seq"),
)

segment_entries = sa.Table(
    "segment_entries",
    metadata,
    sa.Column("retailer_id", sa.Text, primary_key=True),
    sa.Column("pseudonym", sa.LargeBinary, primary_key=True),
    sa.Column("segment_id", sa.Text, primary_key=True),
    sa.Column("from_segment_id", sa.Text, primary_key=True),
    sa.Column("entered_at_ms", sa.BigInteger, nullable=False),
    sa.Column("change_seq", sa.BigInteger, nullable=False),
    sa.Index("segment_entries_by_change", "retailer_id", "change_seq"),
)

visitor_links = sa.Table(
    "visitor_links",
    metadata,
    sa.Column("retailer_id", sa.Text, primary_key=True),
    sa.Column("pseudonym", sa.LargeBinary, primary_key=True),
    sa.Column("customer_pseudonym", sa.LargeBinary, nullable=False),
    sa.Column("linked_at_ms", sa.BigInteger, nullable=False),
    sa.Index("visitor_links_by_customer", "retailer_id", "customer_pseudonym"),
)

audiences = sa.Table(
    "audiences",
    metadata,
    sa.Column("retailer_id", sa.Text, primary_key=True),
    sa.Column("audience_id", sa.Text, primary_key=True),
    sa.Column("advertiser_id", sa.Text, nullable=False),
    sa.Column("status", sa.Text, nullable=False),
    sa.Column("body", sa.Text, nullable=False),
    sa.Column("change_seq", sa.BigInteger, nullable=False),
    sa.Index("audiences_by_advertiser", "retailer_id", "advertiser_id", "audience_id"),
)

patterns = sa.Table(
    "patterns",
    metadata,
    sa.Column("retailer_id", sa.Text, primary_key=True),
    sa.Column("pattern_id", sa.Text, primary_key=True),
    sa.Column("advertiser_id", sa.Text, nullable=False),
    sa.Column("status", sa.Text, nullable=False),
    sa.Column("body", sa.Text, nullable=False),
    sa.Column("change_seq", sa.BigInteger, nullable=False),
    sa.Index("patterns_by_advertiser", "retailer_id", "advertiser_id", "pattern_id"),
)

availability_changes = sa.Table(
    "availability_changes",
    metadata,
    sa.Column("retailer_id", sa.Text, primary_key=True),
    sa.Column("product_id", sa.Text, primary_key=True),
    sa.Column("from_ms", sa.BigInteger, primary_key=True),
    sa.Column("is_available", sa.Boolean, nullable=False),
)

merchandising_signals = sa.Table(
    "merchandising_signals",
    metadata,
    sa.Column("retailer_id", sa.Text, primary_key=True),
    sa.Column("body", sa.Text, nullable=False),
    sa.Column("change_seq", sa.BigInteger, nullable=False),
)

_encode = msgspec.json.Encoder().encode


# --- the change sequence -----------------------------------------------------------------------------------------


def next_change_seq(connection: Connection, retailer_id: str, name: str = DEPLOYMENT) -> int:
    """Take the next number of the deployment's change sequence; transactions that take one come one after another."""
    insert = _insert(connection, change_sequence).values(retailer_id=retailer_id, name=name, value=1)
    statement = insert.on_conflict_do_update(
        index_elements=["retailer_id", "name"], set_={"value": change_sequence.c.value + 1}
    ).returning(change_sequence.c.value)
    return int(connection.execute(statement).scalar_one())


def current_change_seq(connection: Connection, retailer_id: str, name: str = DEPLOYMENT) -> int:
    """Return the last number taken, 0 where none was."""
    query = sa.select(change_sequence.c.value).where(
        change_sequence.c.retailer_id == retailer_id, change_sequence.c.name == name
    )
    return connection.execute(query).scalar_one_or_none() or 0


# --- advertisers -------------------------------------------------------------------------------------------------


def ensure_advertisers(
    connection: Connection,
    retailer_id: str,
    advertiser_ids: Iterable[str] | Mapping[str, str],
    now_ms: int,
) -> None:
    """Make the advertisers that are not there yet; a mapping gives their names, else the id is the name."""
    names = advertiser_ids if isinstance(advertiser_ids, Mapping) else {one: one for one in advertiser_ids}
    rows = [
        {"retailer_id": retailer_id, "advertiser_id": one, "name": name, "created_at_ms": now_ms}
        for one, name in sorted(names.items())
    ]
    _insert_new(connection, advertisers, rows)


def rename_advertiser(connection: Connection, retailer_id: str, advertiser_id: str, name: str) -> bool:
    """Give an advertiser the name shown in disclosures; say whether it was there."""
    is_it = (advertisers.c.retailer_id == retailer_id, advertisers.c.advertiser_id == advertiser_id)
    return bool(connection.execute(advertisers.update().where(*is_it).values(name=name)).rowcount)


def has_advertiser(connection: Connection, retailer_id: str, advertiser_id: str) -> bool:
    """Say whether there is such an advertiser."""
    is_it = (advertisers.c.retailer_id == retailer_id, advertisers.c.advertiser_id == advertiser_id)
    return connection.execute(sa.select(advertisers.c.advertiser_id).where(*is_it)).first() is not None


def list_advertisers(connection: Connection, retailer_id: str) -> list[tuple[str, str]]:
    """Return (advertiser id, name) of every advertiser, in the order of the ids."""
    query = sa.select(advertisers.c.advertiser_id, advertisers.c.name).where(advertisers.c.retailer_id == retailer_id)
    return [(one, name) for one, name in connection.execute(query.order_by(advertisers.c.advertiser_id))]


# --- the catalogue -----------------------------------------------------------------------------------------------


def upsert_products(connection: Connection, retailer_id: str, new_products: Sequence[Product], change_seq: int) -> None:
    """Set products, whole; the advertisers they name must be there (see `ensure_advertisers`).

    Of one product twice in a call, the last stands.

    Raises:
        AttributeTypeDiffers: a custom attribute has another type than the first feed gave it.
    """
    by_id = {product.product_id: product for product in new_products}
    if not by_id:
        return
    _fix_product_attribute_types(connection, retailer_id, by_id.values())
    rows = [
        {"retailer_id": retailer_id, "product_id": one, "body": encode_body(product), "change_seq": change_seq}
        for one, product in by_id.items()
    ]
    upsert(connection, products, rows, ["retailer_id", "product_id"], ["body", "change_seq"])
    for some in _chunks(list(by_id)):
        connection.execute(
            product_advertisers.delete().where(
                product_advertisers.c.retailer_id == retailer_id, product_advertisers.c.product_id.in_(some)
            )
        )
    entitled = [
        {"retailer_id": retailer_id, "product_id": one, "advertiser_id": advertiser_id}
        for one, product in by_id.items()
        for advertiser_id in dict.fromkeys(product.advertiser_ids)
    ]
    if entitled:
        connection.execute(product_advertisers.insert(), entitled)
    own_categories = {product.product_type for product in by_id.values() if product.product_type}
    named = {above for category_id in own_categories for above in category_and_ancestors(category_id)}
    _insert_new(connection, categories, [{"retailer_id": retailer_id, "category_id": one} for one in sorted(named)])


def apply_product_changes(
    connection: Connection, retailer_id: str, changes: Sequence[ProductChange], change_seq: int
) -> list[str]:
    """Change prices, stock and availability of products; return the ids that are not there, which change nothing.

    Changes of one product apply in the order given.
    """
    found = get_products(connection, retailer_id, [change.product_id for change in changes])
    unknown: list[str] = []
    for change in changes:
        known = found.get(change.product_id)
        if known is None:
            unknown.append(change.product_id)
        else:
            found[change.product_id] = change_product(known, change)
    if found:
        rows = [
            {"the_product_id": one, "the_body": encode_body(product), "the_seq": change_seq}
            for one, product in found.items()
        ]
        statement = (
            products.update()
            .where(products.c.retailer_id == retailer_id, products.c.product_id == sa.bindparam("the_product_id"))
            .values(body=sa.bindparam("the_body"), change_seq=sa.bindparam("the_seq"))
        )
        connection.execute(statement, rows)
    return unknown


def get_product(connection: Connection, retailer_id: str, product_id: str) -> Product | None:
    """Return the product, or None."""
    query = sa.select(products.c.body).where(products.c.retailer_id == retailer_id, products.c.product_id == product_id)
    return decode_one(connection, query, Product)


def get_products(connection: Connection, retailer_id: str, product_ids: Iterable[str]) -> dict[str, Product]:
    """Return those of the products that are there, by id."""
    found: dict[str, Product] = {}
    for some in _chunks(sorted(set(product_ids))):
        query = sa.select(products.c.body).where(products.c.retailer_id == retailer_id, products.c.product_id.in_(some))
        for product in decode_list(connection.execute(query).scalars().all(), Product):
            found[product.product_id] = product
    return found


def list_products(
    connection: Connection, retailer_id: str, after: str | None = None, limit: int = 100
) -> list[Product]:
    """Return up to `limit` products in the order of their ids, from just after the id `after`."""
    query = sa.select(products.c.body).where(products.c.retailer_id == retailer_id)
    return decode_page(connection, query, products.c.product_id, after, limit, Product)


def read_products_changed(connection: Connection, retailer_id: str, since_seq: int = -1) -> list[Product]:
    """Return the products changed after `since_seq`, in the order of their ids; since -1 that is all of them."""
    query = sa.select(products.c.body).where(products.c.retailer_id == retailer_id)
    if since_seq >= 0:
        query = query.where(products.c.change_seq > since_seq)
    return decode_list(connection.execute(query.order_by(products.c.product_id)).scalars().all(), Product)


def count_products(connection: Connection, retailer_id: str) -> int:
    """Return how many products there are."""
    query = sa.select(sa.func.count()).select_from(products).where(products.c.retailer_id == retailer_id)
    return int(connection.execute(query).scalar_one())


def entitled_products(
    connection: Connection, retailer_id: str, advertiser_id: str, product_ids: Sequence[str]
) -> set[str]:
    """Return those of the products the advertiser may bid on."""
    found: set[str] = set()
    for some in _chunks(list(dict.fromkeys(product_ids))):
        query = sa.select(product_advertisers.c.product_id).where(
            product_advertisers.c.retailer_id == retailer_id,
            product_advertisers.c.advertiser_id == advertiser_id,
            product_advertisers.c.product_id.in_(some),
        )
        found.update(connection.execute(query).scalars())
    return found


def list_entitled_products(
    connection: Connection, retailer_id: str, advertiser_id: str, after: str | None = None, limit: int = 100
) -> list[Product]:
    """Return up to `limit` products the advertiser may bid on, in the order of their ids."""
    query = (
        sa.select(products.c.body)
        .join(
            product_advertisers,
            sa.and_(
                product_advertisers.c.retailer_id == products.c.retailer_id,
                product_advertisers.c.product_id == products.c.product_id,
            ),
        )
        .where(product_advertisers.c.retailer_id == retailer_id, product_advertisers.c.advertiser_id == advertiser_id)
    )
    return decode_page(connection, query, products.c.product_id, after, limit, Product)


def known_categories(connection: Connection, retailer_id: str, named: Iterable[str] | None = None) -> set[str]:
    """Return the categories there are, those above them included; of `named` only, if given."""
    return _known(connection, categories, categories.c.category_id, retailer_id, named)


def note_availability(connection: Connection, retailer_id: str, is_available: Mapping[str, bool], now_ms: int) -> None:
    """Keep since when products can, or cannot, be bought, where that is not what was kept last.

    Reports ask it of the past, which the catalogue does not tell.
    """
    known = _last_availability(connection, retailer_id, list(is_available))
    rows = [
        {"retailer_id": retailer_id, "product_id": product_id, "from_ms": now_ms, "is_available": now}
        for product_id, now in is_available.items()
        if known.get(product_id) is not now
    ]
    upsert(connection, availability_changes, rows, ["retailer_id", "product_id", "from_ms"], ["is_available"])


def read_availability(connection: Connection, retailer_id: str) -> Iterable[tuple[str, int, bool]]:
    """Yield (product, from when on in UTC milliseconds, whether it can be bought), by product and time."""
    table = availability_changes
    query = sa.select(table.c.product_id, table.c.from_ms, table.c.is_available)
    query = query.where(table.c.retailer_id == retailer_id).order_by(table.c.product_id, table.c.from_ms)
    for row in connection.execute(query.execution_options(yield_per=10_000)):
        yield row.product_id, row.from_ms, row.is_available


def forget_availability(connection: Connection, retailer_id: str, before_ms: int) -> int:
    """Delete what was no longer so at a moment; return how many rows went."""
    table, later = availability_changes, availability_changes.alias()
    is_over = sa.exists().where(
        later.c.retailer_id == table.c.retailer_id,
        later.c.product_id == table.c.product_id,
        later.c.from_ms > table.c.from_ms,
        later.c.from_ms <= before_ms,
    )
    return connection.execute(table.delete().where(table.c.retailer_id == retailer_id, is_over)).rowcount


def _last_availability(connection: Connection, retailer_id: str, product_ids: list[str]) -> dict[str, bool]:
    table = availability_changes
    known: dict[str, bool] = {}
    for some in _chunks(product_ids):
        query = sa.select(table.c.product_id, table.c.is_available).where(
            table.c.retailer_id == retailer_id, table.c.product_id.in_(some)
        )
        known.update((one, now) for one, now in connection.execute(query.order_by(table.c.from_ms)))
    return known


# --- signals of merchandising ------------------------------------------------------------------------------------


def put_signals(connection: Connection, retailer_id: str, signals: Signals, change_seq: int) -> None:
    """Put signals in the place of those there were."""
    row = {"retailer_id": retailer_id, "body": encode_body(signals), "change_seq": change_seq}
    upsert(connection, merchandising_signals, [row], ["retailer_id"], ["body", "change_seq"])


def read_signals(connection: Connection, retailer_id: str, since_seq: int = -1) -> Signals | None:
    """Return the signals, None where there are none or they did not change after `since_seq`."""
    table = merchandising_signals
    query = sa.select(table.c.body).where(table.c.retailer_id == retailer_id, table.c.change_seq > since_seq)
    body = connection.execute(query).scalar_one_or_none()
    return None if body is None else msgspec.json.decode(body, type=Signals)


# --- custom attributes -------------------------------------------------------------------------------------------


def read_attribute_types(
    connection: Connection, retailer_id: str, scope: Literal["product", "profile"]
) -> dict[str, AttributeType]:
    """Return the type of every custom attribute, as the first feed that brought it fixed it."""
    query = sa.select(attribute_types.c.name, attribute_types.c.type).where(
        attribute_types.c.retailer_id == retailer_id, attribute_types.c.scope == scope
    )
    return dict(connection.execute(query).all())


def fix_attribute_types(
    connection: Connection,
    retailer_id: str,
    scope: Literal["product", "profile"],
    attributes: Iterable[Mapping[str, Attribute]],
) -> None:
    """Fix the types of attributes that are new, and check those of the others. A whole number may stand for a float.

    Raises:
        AttributeTypeDiffers: an attribute has another type than it was fixed to.
    """
    seen: dict[str, set[AttributeType]] = {}
    for one in attributes:
        for name, value in one.items():
            seen.setdefault(name, set()).add(attribute_type(value))
    if not seen:
        return
    known = read_attribute_types(connection, retailer_id, scope)
    new: list[dict[str, str]] = []
    for name, kinds in sorted(seen.items()):
        fixed = known.get(name)
        if fixed is None:
            fixed = "float" if kinds == {"int", "float"} else sorted(kinds)[0]
            new.append({"retailer_id": retailer_id, "scope": scope, "name": name, "type": fixed})
        others = kinds - {fixed, "int" if fixed == "float" else fixed}
        if others:
            raise AttributeTypeDiffers(
                f"attribute {name!r} must be {fixed}, was {sorted(others)[0]}", f"/attributes/{name}"
            )
    _insert_new(connection, attribute_types, new)


# --- profiles and links ------------------------------------------------------------------------------------------


class ProfileRow(Struct, frozen=True):
    """A visitor's profile as it is kept."""

    pseudonym: bytes
    profile: ProfileDraft
    change_seq: int


def put_profile(connection: Connection, retailer_id: str, pseudonym: bytes, profile: ProfileDraft, now_ms: int) -> int:
    """Set a visitor's profile, whole; return its place in the sequence of visitors' changes.

    Segments that it names and the one before did not, if there was one, are recorded as entered now.

    Raises:
        AttributeTypeDiffers: an attribute has another type than the first profile gave it.
    """
    return put_profiles(connection, retailer_id, {pseudonym: profile}, now_ms, newcomers_enter=True)


def put_profiles(
    connection: Connection,
    retailer_id: str,
    new_profiles: Mapping[bytes, ProfileDraft],
    now_ms: int,
    *,
    newcomers_enter: bool = False,
) -> int:
    """Set the profiles of many visitors, whole; return their place in the sequence of visitors' changes.

    Segments that a profile names and the one before did not are recorded as entered now. A visitor's first profile only
    tells where they stand, unless `newcomers_enter`: else a whole base would have entered on the day it was imported.

    Raises:
        AttributeTypeDiffers: an attribute has another type than the first profile gave it.
    """
    fix_attribute_types(connection, retailer_id, "profile", (one.attributes for one in new_profiles.values()))
    named = {segment_id for one in new_profiles.values() for segment_id in one.segments}
    _insert_new(connection, segments, [{"retailer_id": retailer_id, "segment_id": one} for one in sorted(named)])
    change_seq = next_change_seq(connection, retailer_id, VISITORS)
    before = _get_profiles(connection, retailer_id, list(new_profiles))
    entries = [
        entry
        for pseudonym, profile in new_profiles.items()
        if newcomers_enter or pseudonym in before
        for entry in entries_between(pseudonym, before.get(pseudonym, NO_PROFILE).segments, profile.segments, now_ms)
    ]
    _record_entries(connection, retailer_id, entries, change_seq)
    rows = [
        {
            "retailer_id": retailer_id,
            "pseudonym": pseudonym,
            "body": encode_body(profile),
            "updated_at_ms": now_ms,
            "change_seq": change_seq,
        }
        for pseudonym, profile in new_profiles.items()
    ]
    upsert(connection, profiles, rows, ["retailer_id", "pseudonym"], ["body", "updated_at_ms", "change_seq"])
    return change_seq


def get_profile(connection: Connection, retailer_id: str, pseudonym: bytes) -> ProfileDraft | None:
    """Return the visitor's profile, or None."""
    return _get_profiles(connection, retailer_id, [pseudonym]).get(pseudonym)


def read_profiles(connection: Connection, retailer_id: str, since_seq: int = -1) -> list[ProfileRow]:
    """Return the profiles set after `since_seq` in the sequence of visitors' changes, in that order."""
    query = (
        sa.select(profiles.c.pseudonym, profiles.c.body, profiles.c.change_seq)
        .where(profiles.c.retailer_id == retailer_id, profiles.c.change_seq > since_seq)
        .order_by(profiles.c.change_seq)
    )
    rows = connection.execute(query).all()
    decoded = decode_list((row.body for row in rows), ProfileDraft)
    return [
        ProfileRow(bytes(row.pseudonym), profile, row.change_seq) for row, profile in zip(rows, decoded, strict=True)
    ]


def read_profile_pseudonyms(connection: Connection, retailer_id: str) -> set[bytes]:
    """Return of whom there is a profile."""
    query = sa.select(profiles.c.pseudonym).where(profiles.c.retailer_id == retailer_id)
    return {bytes(one) for one in connection.execute(query).scalars()}


# --- what is computed of customers -------------------------------------------------------------------------------


def begin_computation(connection: Connection, retailer_id: str) -> int:
    """Return how many erasures there were, so that `put_computed_profiles` can tell whether there was another."""
    _insert_new(connection, change_sequence, [{"retailer_id": retailer_id, "name": ERASURES, "value": 0}])
    return current_change_seq(connection, retailer_id, ERASURES)


def put_computed_profiles(
    connection: Connection,
    retailer_id: str,
    computed: Mapping[bytes, ComputedProfile],
    entries: Sequence[SegmentEntry],
    erasure_seq: int,
) -> bool:
    """Set what was computed of some visitors, and record which segments they entered.

    Args:
        connection: open, in a transaction.
        retailer_id: whose visitors they are.
        computed: by pseudonym.
        entries: of the same visitors.
        erasure_seq: `begin_computation` returned it before anything was read that this was computed from.

    Returns:
        Whether they were set: not where somebody was erased since, who may be among them.
    """
    query = sa.select(change_sequence.c.value).where(
        change_sequence.c.retailer_id == retailer_id, change_sequence.c.name == ERASURES
    )
    if connection.execute(query.with_for_update()).scalar_one() != erasure_seq:  # erasures wait from here on
        return False
    change_seq = next_change_seq(connection, retailer_id, VISITORS)
    rows = [
        {
            "retailer_id": retailer_id,
            "pseudonym": pseudonym,
            "body": encode_body(one),
            "computed_at_ms": one.through_ms,
            "change_seq": change_seq,
        }
        for pseudonym, one in computed.items()
    ]
    changed = ["body", "computed_at_ms", "change_seq"]
    upsert(connection, computed_profiles, rows, ["retailer_id", "pseudonym"], changed)
    _record_entries(connection, retailer_id, entries, change_seq)
    return True


def finish_computation(connection: Connection, retailer_id: str, scale: CustomerScale, now_ms: int) -> None:
    """Set how customers compare, and delete what was computed before of those who are no customers any more."""
    row = {"retailer_id": retailer_id, "body": encode_body(scale), "computed_at_ms": now_ms}
    upsert(connection, customer_scales, [row], ["retailer_id"], ["body", "computed_at_ms"])
    is_old = sa.and_(computed_profiles.c.retailer_id == retailer_id, computed_profiles.c.computed_at_ms < now_ms)
    connection.execute(computed_profiles.delete().where(is_old))
    next_change_seq(connection, retailer_id, VISITORS)


def read_customer_scale(connection: Connection, retailer_id: str) -> CustomerScale | None:
    """Return how customers compare, as computed last; None before the first time."""
    query = sa.select(customer_scales.c.body).where(customer_scales.c.retailer_id == retailer_id)
    body = connection.execute(query).scalar_one_or_none()
    return None if body is None else msgspec.json.decode(body, type=CustomerScale)


class VisitorChanges(Struct, frozen=True):
    """What a serving process takes over of visitors.

    Attributes:
        links: all there are.
        scale: how customers compare.
        profiles, computed, entries: those set since, the first two with their pseudonyms.
    """

    links: dict[bytes, bytes]
    scale: CustomerScale | None
    profiles: list[tuple[bytes, ProfileDraft]]
    computed: list[tuple[bytes, ComputedProfile]]
    entries: list[SegmentEntry]


def read_visitor_changes(connection: Connection, retailer_id: str, since_seq: int) -> VisitorChanges:
    """Return what is there of visitors, and what of it was set after `since_seq` in the sequence of their changes."""
    return VisitorChanges(
        links=read_links(connection, retailer_id),
        scale=read_customer_scale(connection, retailer_id),
        profiles=[(row.pseudonym, row.profile) for row in read_profiles(connection, retailer_id, since_seq)],
        computed=read_computed_profiles(connection, retailer_id, since_seq),
        entries=read_segment_entries(connection, retailer_id, since_seq),
    )


def read_customer_segments(connection: Connection, retailer_id: str) -> dict[bytes, dict[str, str]] | None:
    """Return where each person stood when they were computed last; None before the first time."""
    if read_customer_scale(connection, retailer_id) is None:
        return None
    rows = read_computed_profiles(connection, retailer_id)
    return {pseudonym: computed.segments for pseudonym, computed in rows if computed.segments}


def read_segments_of(connection: Connection, retailer_id: str) -> dict[bytes, set[str]]:
    """Return the segments of every visitor in any: those of their profile, and where they stood when computed last.

    Of a visitor joined to a customer, the customer's too.
    """
    found = {row.pseudonym: set(row.profile.segments) for row in read_profiles(connection, retailer_id)}
    for pseudonym, named in (read_customer_segments(connection, retailer_id) or {}).items():
        found.setdefault(pseudonym, set()).update(f"{kind}:{name}" for kind, name in named.items())
    for pseudonym, customer in read_links(connection, retailer_id).items():
        found[pseudonym] = found.get(pseudonym, set()) | found.get(customer, set())
    return {pseudonym: segments for pseudonym, segments in found.items() if segments}


def read_computed_profiles(
    connection: Connection, retailer_id: str, since_seq: int = -1
) -> list[tuple[bytes, ComputedProfile]]:
    """Return what was computed after `since_seq` in the sequence of visitors' changes, with whose it is."""
    query = sa.select(computed_profiles.c.pseudonym, computed_profiles.c.body).where(
        computed_profiles.c.retailer_id == retailer_id, computed_profiles.c.change_seq > since_seq
    )
    rows = connection.execute(query).all()
    decoded = decode_list([row.body for row in rows], ComputedProfile)
    return [(bytes(row.pseudonym), computed) for row, computed in zip(rows, decoded, strict=True)]


def read_segment_entries(connection: Connection, retailer_id: str, since_seq: int = -1) -> list[SegmentEntry]:
    """Return the entries into segments recorded after `since_seq` in the sequence of visitors' changes."""
    query = sa.select(
        segment_entries.c.pseudonym,
        segment_entries.c.segment_id,
        segment_entries.c.from_segment_id,
        segment_entries.c.entered_at_ms,
    ).where(segment_entries.c.retailer_id == retailer_id, segment_entries.c.change_seq > since_seq)
    return [SegmentEntry(bytes(row[0]), row[1], row[2], row[3]) for row in connection.execute(query)]


def known_segments(connection: Connection, retailer_id: str, named: Iterable[str] | None = None) -> set[str]:
    """Return the segments any profile ever named; of `named` only, if given."""
    return _known(connection, segments, segments.c.segment_id, retailer_id, named)


def put_link(
    connection: Connection, retailer_id: str, pseudonym: bytes, customer_pseudonym: bytes, now_ms: int
) -> None:
    """Join a visitor to a customer, whomever it was joined to before."""
    row = {
        "retailer_id": retailer_id,
        "pseudonym": pseudonym,
        "customer_pseudonym": customer_pseudonym,
        "linked_at_ms": now_ms,
    }
    upsert(connection, visitor_links, [row], ["retailer_id", "pseudonym"], ["customer_pseudonym", "linked_at_ms"])
    next_change_seq(connection, retailer_id, VISITORS)


def delete_link(connection: Connection, retailer_id: str, pseudonym: bytes) -> bool:
    """Part a visitor from its customer; say whether it was joined to one."""
    is_it = (visitor_links.c.retailer_id == retailer_id, visitor_links.c.pseudonym == pseudonym)
    return bool(connection.execute(visitor_links.delete().where(*is_it)).rowcount)


def read_links(connection: Connection, retailer_id: str) -> dict[bytes, bytes]:
    """Return the customer of every visitor that is joined to one."""
    query = sa.select(visitor_links.c.pseudonym, visitor_links.c.customer_pseudonym).where(
        visitor_links.c.retailer_id == retailer_id
    )
    return {bytes(one): bytes(customer) for one, customer in connection.execute(query)}


def read_person(connection: Connection, retailer_id: str, pseudonym: bytes) -> set[bytes]:
    """Return every pseudonym of the same person: the visitor's, their customer's, and all its devices'."""
    of_retailer = visitor_links.c.retailer_id == retailer_id
    query = sa.select(visitor_links.c.customer_pseudonym).where(of_retailer, visitor_links.c.pseudonym == pseudonym)
    customer = bytes(connection.execute(query).scalar_one_or_none() or pseudonym)
    devices = sa.select(visitor_links.c.pseudonym).where(of_retailer, visitor_links.c.customer_pseudonym == customer)
    return {pseudonym, customer, *(bytes(one) for one in connection.execute(devices).scalars())}


def delete_visitor(connection: Connection, retailer_id: str, pseudonyms: Iterable[bytes]) -> int:
    """Delete everything kept under any of the pseudonyms; return how many rows went."""
    named = list(pseudonyms)
    next_change_seq(connection, retailer_id, ERASURES)
    in_links = sa.and_(
        visitor_links.c.retailer_id == retailer_id,
        sa.or_(visitor_links.c.pseudonym.in_(named), visitor_links.c.customer_pseudonym.in_(named)),
    )
    gone = connection.execute(visitor_links.delete().where(in_links)).rowcount
    for table in (profiles, computed_profiles, segment_entries):
        is_theirs = sa.and_(table.c.retailer_id == retailer_id, table.c.pseudonym.in_(named))
        gone += connection.execute(table.delete().where(is_theirs)).rowcount
    return gone


def read_vocabulary(
    connection: Connection,
    retailer_id: str,
    mentioning: Audience | NavigationPattern,
    special: SpecialCategories | None = None,
) -> Vocabulary:
    """Return what exists of the segments, categories and attributes an audience or a pattern mentions.

    Args:
        connection: open.
        retailer_id: whose they are.
        mentioning: the audience or pattern.
        special: the names that are refused; None means those of the default setting.
    """
    if isinstance(mentioning, NavigationPattern):
        steps = (*mentioning.steps, *mentioning.without)
        named = {step.category_id for step in steps if step.category_id is not None}
        return Vocabulary(categories=frozenset(known_categories(connection, retailer_id, named)))
    nodes = list(predicates_of(mentioning))
    named_segments = {
        one for node in nodes for one in (node.segment, node.entered_segment, node.from_segment) if one is not None
    }
    named_categories = {one for node in nodes for one in (node.category_id, node.affinity_category) if one is not None}
    has_attributes = any(node.attribute is not None or node.loyalty_tier is not None for node in nodes)
    return Vocabulary(
        segments=frozenset(known_segments(connection, retailer_id, named_segments)),
        categories=frozenset(known_categories(connection, retailer_id, named_categories)),
        attribute_types=read_attribute_types(connection, retailer_id, "profile") if has_attributes else {},
        special=special_categories(DEFAULT_TERMS) if special is None else special,
    )


# --- saved audiences and patterns --------------------------------------------------------------------------------


def insert_audience(connection: Connection, retailer_id: str, audience: SavedAudience) -> None:
    """Keep a new audience."""
    connection.execute(audiences.insert().values(retailer_id=retailer_id, **_audience_row(audience)))


def update_audience(connection: Connection, retailer_id: str, audience: SavedAudience) -> bool:
    """Replace the audience of that id; say whether it was there."""
    is_it = (audiences.c.retailer_id == retailer_id, audiences.c.audience_id == audience.audience_id)
    return replace_row(connection, audiences, is_it, _audience_row(audience))


def get_audience(
    connection: Connection, retailer_id: str, audience_id: str, advertiser_id: str | None = None
) -> SavedAudience | None:
    """Return the audience, or None where there is none or it is not that advertiser's (None: anybody's)."""
    return _get_saved(
        connection, audiences, audiences.c.audience_id, retailer_id, audience_id, advertiser_id, SavedAudience
    )


def list_audiences(
    connection: Connection,
    retailer_id: str,
    advertiser_id: str | None = None,
    after: str | None = None,
    limit: int = 100,
    *,
    include_archived: bool = False,
) -> list[SavedAudience]:
    """Return up to `limit` audiences in the order of their ids, from just after the id `after`."""
    query = sa.select(audiences.c.body).where(audiences.c.retailer_id == retailer_id)
    return _list_saved(
        connection,
        query,
        audiences,
        audiences.c.audience_id,
        advertiser_id,
        after,
        limit,
        include_archived,
        SavedAudience,
    )


def archive_audience(connection: Connection, retailer_id: str, audience_id: str, change_seq: int) -> bool:
    """Archive the audience; say whether it was there and not archived yet."""
    audience = get_audience(connection, retailer_id, audience_id)
    if audience is None or audience.status == "archived":
        return False
    archived = msgspec.structs.replace(audience, status="archived", change_seq=change_seq)
    return update_audience(connection, retailer_id, archived)


def insert_pattern(connection: Connection, retailer_id: str, pattern: SavedPattern) -> None:
    """Keep a new pattern."""
    connection.execute(patterns.insert().values(retailer_id=retailer_id, **_pattern_row(pattern)))


def update_pattern(connection: Connection, retailer_id: str, pattern: SavedPattern) -> bool:
    """Replace the pattern of that id; say whether it was there."""
    is_it = (patterns.c.retailer_id == retailer_id, patterns.c.pattern_id == pattern.pattern_id)
    return replace_row(connection, patterns, is_it, _pattern_row(pattern))


def get_pattern(
    connection: Connection, retailer_id: str, pattern_id: str, advertiser_id: str | None = None
) -> SavedPattern | None:
    """Return the pattern, or None where there is none or it is not that advertiser's (None: anybody's)."""
    return _get_saved(connection, patterns, patterns.c.pattern_id, retailer_id, pattern_id, advertiser_id, SavedPattern)


def list_patterns(
    connection: Connection,
    retailer_id: str,
    advertiser_id: str | None = None,
    after: str | None = None,
    limit: int = 100,
    *,
    include_archived: bool = False,
) -> list[SavedPattern]:
    """Return up to `limit` patterns in the order of their ids, from just after the id `after`."""
    query = sa.select(patterns.c.body).where(patterns.c.retailer_id == retailer_id)
    return _list_saved(
        connection, query, patterns, patterns.c.pattern_id, advertiser_id, after, limit, include_archived, SavedPattern
    )


def field_text(field: str) -> str:
    """Return what stands in the body of everything with a product target that asks for an attribute of that name."""
    return f'"field":"{field}"'


def pattern_asking(connection: Connection, retailer_id: str, field: str) -> SavedPattern | None:
    """Return the first pattern, not archived, that asks for a product field by name, such as a virtual attribute."""
    query = sa.select(patterns.c.body).where(
        patterns.c.retailer_id == retailer_id,
        patterns.c.status != "archived",
        patterns.c.body.contains(field_text(field), autoescape=True),
    )
    found = decode_list(connection.execute(query.order_by(patterns.c.pattern_id)).scalars().all(), SavedPattern)
    return next((saved for saved in found if field in product_fields_of(saved.navigation_pattern)), None)


def archive_pattern(connection: Connection, retailer_id: str, pattern_id: str, change_seq: int) -> bool:
    """Archive the pattern; say whether it was there and not archived yet."""
    pattern = get_pattern(connection, retailer_id, pattern_id)
    if pattern is None or pattern.status == "archived":
        return False
    archived = msgspec.structs.replace(pattern, status="archived", change_seq=change_seq)
    return update_pattern(connection, retailer_id, archived)


# --- rows that keep the whole thing as JSON in `body`; the auction's tables are such too ---------------------------


def encode_body(thing: Struct) -> str:
    """Return what `body` keeps of it."""
    return _encode(thing).decode()


def decode_one(connection: Connection, query: sa.Select[Any], kind: type[T]) -> T | None:
    """Return the thing of the one `body` a query finds, or None."""
    body = connection.execute(query).scalar_one_or_none()
    return None if body is None else msgspec.json.decode(body, type=kind)


def decode_page(
    connection: Connection,
    query: sa.Select[Any],
    key: sa.ColumnElement[str],
    after: str | None,
    limit: int,
    kind: type[T],
) -> list[T]:
    """Return up to `limit` things of a query for `body`, in the order of the key, from just after the key `after`."""
    if after is not None:
        query = query.where(key > after)
    return decode_list(connection.execute(query.order_by(key).limit(limit)).scalars().all(), kind)


def decode_list(bodies: Iterable[str], kind: type[T]) -> list[T]:
    """Return the things; one decoding of one array costs a third of as many small ones."""
    return msgspec.json.decode("[" + ",".join(bodies) + "]", type=list[kind])  # type: ignore[valid-type]


def with_status(query: sa.Select[Any], table: sa.Table, status: str | None, include_archived: bool) -> sa.Select[Any]:
    """Return a query for what has that status; for None, for all that is not archived, or all there is."""
    if status is not None:
        return query.where(table.c.status == status)
    return query if include_archived else query.where(table.c.status != "archived")


def replace_row(
    connection: Connection,
    table: sa.Table,
    is_it: tuple[sa.ColumnElement[bool], ...],
    row: Mapping[str, Any],
    expected_change_seq: int | None = None,
) -> bool:
    """Replace a row; say whether it was there, and still as of `expected_change_seq` if given."""
    statement = table.update().where(*is_it).values(**row)
    if expected_change_seq is not None:
        statement = statement.where(table.c.change_seq == expected_change_seq)
    return bool(connection.execute(statement).rowcount)


def upsert(
    connection: Connection, table: sa.Table, rows: Sequence[Mapping[str, Any]], key: list[str], changed: list[str]
) -> None:
    """Insert rows, or where one of that key is there, change these columns of it."""
    if rows:
        insert = _insert(connection, table)
        set_ = {name: insert.excluded[name] for name in changed}
        connection.execute(insert.on_conflict_do_update(index_elements=key, set_=set_), rows)


# --- rows --------------------------------------------------------------------------------------------------------


def _get_profiles(connection: Connection, retailer_id: str, pseudonyms: list[bytes]) -> dict[bytes, ProfileDraft]:
    found: dict[bytes, ProfileDraft] = {}
    for some in _chunks(pseudonyms):
        query = sa.select(profiles.c.pseudonym, profiles.c.body).where(
            profiles.c.retailer_id == retailer_id, profiles.c.pseudonym.in_(some)
        )
        for pseudonym, body in connection.execute(query):
            found[bytes(pseudonym)] = msgspec.json.decode(body, type=ProfileDraft)
    return found


def _record_entries(connection: Connection, retailer_id: str, entries: Iterable[SegmentEntry], change_seq: int) -> None:
    rows = [{"retailer_id": retailer_id, "change_seq": change_seq, **entry._asdict()} for entry in entries]
    key = ["retailer_id", "pseudonym", "segment_id", "from_segment_id"]
    upsert(connection, segment_entries, rows, key, ["entered_at_ms", "change_seq"])


def _audience_row(audience: SavedAudience) -> dict[str, Any]:
    return {
        "audience_id": audience.audience_id,
        "advertiser_id": audience.advertiser_id,
        "status": audience.status,
        "body": encode_body(audience),
        "change_seq": audience.change_seq,
    }


def _pattern_row(pattern: SavedPattern) -> dict[str, Any]:
    return {
        "pattern_id": pattern.pattern_id,
        "advertiser_id": pattern.advertiser_id,
        "status": pattern.status,
        "body": encode_body(pattern),
        "change_seq": pattern.change_seq,
    }


def _get_saved(
    connection: Connection,
    table: sa.Table,
    key: sa.Column[str],
    retailer_id: str,
    saved_id: str,
    advertiser_id: str | None,
    kind: type[T],
) -> T | None:
    query = sa.select(table.c.body).where(table.c.retailer_id == retailer_id, key == saved_id)
    if advertiser_id is not None:
        query = query.where(table.c.advertiser_id == advertiser_id)
    return decode_one(connection, query, kind)


def _list_saved(
    connection: Connection,
    query: sa.Select[Any],
    table: sa.Table,
    key: sa.Column[str],
    advertiser_id: str | None,
    after: str | None,
    limit: int,
    include_archived: bool,
    kind: type[T],
) -> list[T]:
    if advertiser_id is not None:
        query = query.where(table.c.advertiser_id == advertiser_id)
    query = with_status(query, table, None, include_archived)
    return decode_page(connection, query, key, after, limit, kind)


def _fix_product_attribute_types(connection: Connection, retailer_id: str, new_products: Iterable[Product]) -> None:
    fix_attribute_types(
        connection, retailer_id, "product", (product.attributes for product in new_products if product.attributes)
    )


def _known(
    connection: Connection,
    table: sa.Table,
    column: sa.Column[str],
    retailer_id: str,
    named: Iterable[str] | None,
) -> set[str]:
    query = sa.select(column).where(table.c.retailer_id == retailer_id)
    if named is None:
        return set(connection.execute(query).scalars())
    found: set[str] = set()
    for some in _chunks(sorted(set(named))):
        found.update(connection.execute(query.where(column.in_(some))).scalars())
    return found


def _insert(connection: Connection, table: sa.Table) -> Any:
    return (sqlite_insert if connection.dialect.name == "sqlite" else postgres_insert)(table)


def _insert_new(connection: Connection, table: sa.Table, rows: Sequence[Mapping[str, Any]]) -> None:
    if rows:
        connection.execute(_insert(connection, table).on_conflict_do_nothing(), rows)


def _chunks(ids: list[T]) -> Iterable[list[T]]:
    return (ids[first : first + PARAMETER_COUNT_MAX] for first in range(0, len(ids), PARAMETER_COUNT_MAX))
