"""Saved audiences: typed trees over what is known of a visitor, checked against what exists when saved."""

from collections.abc import Callable

import msgspec
from msgspec import Struct
from sqlalchemy.engine import Connection

from affinity.audience import Audience, SavedAudience, choices_of, validate_audience
from affinity.catalog import AdvertiserId
from affinity.special import SpecialCategories
from affinity.store import get_audience, insert_audience, list_audiences, read_vocabulary, update_audience
from auction.campaign import Name
from bidder_api.call import Answer, Call, Work
from bidder_api.resources import page_of, patch_type
from bidder_api.saved import SavedKind


class AudienceDraft(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Body of `POST /v1/audiences`."""

    name: Name
    audience: Audience
    advertiser_id: AdvertiserId | None = None  # only an admin or agency may say it


class CountedAudience(SavedAudience, frozen=True, kw_only=True):
    """A saved audience, and about how many visitors are in it now: null under 50, which are never shown.

    Attributes:
        visitor_count: of the audience, rounded down to tens and to two digits; null also where it is a list.
        visitor_counts: of a list, that of each of its names and of `other`.
    """

    visitor_count: int | None
    visitor_counts: dict[str, int | None] | None


class AudiencePreviewRequest(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Body of `POST /v1/audiences/preview`."""

    audience: Audience


class AudiencePreview(Struct, frozen=True, kw_only=True):
    """About how many visitors are in an audience that is not saved, as of a saved one."""

    visitor_count: int | None
    visitor_counts: dict[str, int | None] | None


AudiencePatch = patch_type(AudienceDraft, "AudiencePatch", leave_out=["advertiser_id"])
AudiencePage = page_of("Audience", SavedAudience)


def check_audience(
    connection: Connection,
    retailer_id: str,
    audience: Audience,
    pointer: str,
    special: SpecialCategories,
    *,
    may_leave_brand_out: bool = False,
    may_be_list: bool = False,
) -> None:
    """Check an audience against the segments, categories and attributes there are.

    Raises:
        AudienceRefused: with the pointer of the first offending node.
        SpecialCategoryRefused: likewise.
    """
    vocabulary = read_vocabulary(connection, retailer_id, audience, special)
    validate_audience(audience, vocabulary, pointer, may_leave_brand_out=may_leave_brand_out, may_be_list=may_be_list)


def saved_audiences(count: Callable[[Audience], int | None], special: SpecialCategories) -> SavedKind[SavedAudience]:
    """Return the operations on saved audiences.

    Args:
        count: how many visitors are in an audience now; None under the least number that is shown.
        special: names that are refused.
    """

    def check(connection: Connection, retailer_id: str, saved: SavedAudience) -> None:
        _check_saved(connection, retailer_id, saved.audience, special)

    def show(saved: SavedAudience) -> CountedAudience:
        return CountedAudience(
            **msgspec.structs.asdict(saved), **msgspec.structs.asdict(_preview(saved.audience, count))
        )

    return SavedKind(
        kind="audience",
        path="/v1/audiences",
        prefix="aud",
        make=SavedAudience,
        check=check,
        insert=insert_audience,
        get=get_audience,
        list_some=list_audiences,
        update=update_audience,
        show=show,
    )


def audience_preview(count: Callable[[Audience], int | None]) -> Work:
    """Return the operation that counts an audience which is not saved; `count` as in `saved_audiences`."""

    def preview(connection: Connection, call: Call) -> Answer:
        asked: AudiencePreviewRequest = call.body
        _check_saved(connection, call.retailer_id, asked.audience, call.special)
        return Answer(body=_preview(asked.audience, count))

    return preview


def _check_saved(connection: Connection, retailer_id: str, audience: Audience, special: SpecialCategories) -> None:
    check_audience(connection, retailer_id, audience, "/audience", special, may_leave_brand_out=True, may_be_list=True)


def _preview(audience: Audience, count: Callable[[Audience], int | None]) -> AudiencePreview:
    choices = choices_of(audience)
    return AudiencePreview(
        visitor_count=None if choices else count(audience),
        visitor_counts={name: count(choice) for name, choice in choices.items()} if choices else None,
    )
