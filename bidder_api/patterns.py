"""Saved navigation patterns: ordered steps of a visitor, checked against what exists when saved."""

from collections.abc import Callable

import msgspec
from msgspec import Struct
from sqlalchemy.engine import Connection

from affinity.catalog import AdvertiserId
from affinity.pattern import NavigationPattern, SavedPattern, validate_pattern
from affinity.store import get_pattern, insert_pattern, list_patterns, read_vocabulary, update_pattern
from auction.campaign import Name
from bidder_api.resources import page_of, patch_type
from bidder_api.saved import SavedKind


class PatternDraft(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Body of `POST /v1/navigation-patterns`."""

    name: Name
    navigation_pattern: NavigationPattern
    advertiser_id: AdvertiserId | None = None  # only an admin or agency may say it


class CountedPattern(SavedPattern, frozen=True, kw_only=True):
    """A saved pattern, and for how many visitors it holds now: null under 50, which are never shown."""

    visitor_count: int | None


PatternPatch = patch_type(PatternDraft, "PatternPatch", leave_out=["advertiser_id"])
PatternPage = page_of("Pattern", SavedPattern)


def check_pattern(connection: Connection, retailer_id: str, pattern: NavigationPattern, pointer: str) -> None:
    """Check a pattern against the categories there are.

    Raises:
        PatternRefused: with the pointer of the first offending step.
    """
    validate_pattern(pattern, read_vocabulary(connection, retailer_id, pattern), pointer)


def _check(connection: Connection, retailer_id: str, saved: SavedPattern) -> None:
    check_pattern(connection, retailer_id, saved.navigation_pattern, "/navigation_pattern")


def saved_patterns(count: Callable[[NavigationPattern], int | None]) -> SavedKind[SavedPattern]:
    """Return the operations on saved patterns.

    Args:
        count: for how many visitors a pattern holds now; None under the least number that is shown.
    """

    def show(saved: SavedPattern) -> CountedPattern:
        return CountedPattern(**msgspec.structs.asdict(saved), visitor_count=count(saved.navigation_pattern))

    return SavedKind(
        kind="pattern",
        path="/v1/navigation-patterns",
        prefix="pat",
        make=SavedPattern,
        check=_check,
        insert=insert_pattern,
        get=get_pattern,
        list_some=list_patterns,
        update=update_pattern,
        show=show,
    )
