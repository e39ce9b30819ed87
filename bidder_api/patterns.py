"""Saved navigation patterns: ordered steps of a visitor, checked against what exists when saved."""

from collections.abc import Callable

import msgspec
from msgspec import Struct
from sqlalchemy.engine import Connection
from starlette.requests import Request
from starlette.responses import Response

from affinity.catalog import AdvertiserId
from affinity.navigation import VisitorId
from affinity.pattern import NavigationPattern, SavedPattern, validate_pattern
from affinity.pattern_explanation import PatternExplanation, explain_pattern
from affinity.shared_visitors import SharedVisitors
from affinity.store import get_pattern, insert_pattern, list_patterns, read_vocabulary, update_pattern
from affinity.visitors import VisitorStore
from auction.campaign import Name
from bidder_api.call import Desk, Endpoint
from bidder_api.errors import NotFound
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


class ExplainQuery(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Query of `GET /v1/navigation-patterns/{pattern_id}/explain`."""

    visitor_id: VisitorId


class ExplainedPattern(PatternExplanation, frozen=True, kw_only=True):
    """A saved pattern, and how far one visitor is with it."""

    pattern_id: str
    advertiser_id: str
    name: str
    navigation_pattern: NavigationPattern
    visitor_id: str


PatternPatch = patch_type(PatternDraft, "PatternPatch", leave_out=["advertiser_id"])
PatternPage = page_of("Pattern", SavedPattern)

_encode = msgspec.json.Encoder().encode


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


def explain_endpoint(desk: Desk, visitors: VisitorStore, shared: SharedVisitors | None = None) -> Endpoint:
    """Return the endpoint of `GET /v1/navigation-patterns/{pattern_id}/explain`.

    Args:
        desk: where the pattern is read.
        visitors: the serving process's; looked at on its thread, for as long as it takes to copy one's events.
        shared: where other processes share them; None where they do not.
    """
    gap_ms = visitors.settings.session_gap_s * 1000

    async def endpoint(request: Request) -> Response:
        pattern_id: str = request.scope["path_params"]["pattern_id"]
        query: ExplainQuery = request.scope["query"]
        now_ms, pseudonym = desk.clock_ms(), visitors.pseudonym(query.visitor_id)
        if shared is not None:
            await shared.read(pseudonym)
        record = visitors.record(pseudonym)
        events = None if record is None else list(record.events)

        def explain() -> ExplainedPattern:
            saved = desk.database.read(lambda connection: get_pattern(connection, desk.retailer_id, pattern_id))
            if saved is None:
                raise NotFound("pattern", pattern_id)
            return ExplainedPattern(
                **msgspec.structs.asdict(explain_pattern(saved.navigation_pattern, events, gap_ms, now_ms)),
                pattern_id=saved.pattern_id,
                advertiser_id=saved.advertiser_id,
                name=saved.name,
                navigation_pattern=saved.navigation_pattern,
                visitor_id=query.visitor_id,
            )

        answer = await desk.in_thread(request.scope["operation"], explain)
        return Response(_encode(answer), media_type="application/json", headers={"Cache-Control": "no-store"})

    return endpoint
