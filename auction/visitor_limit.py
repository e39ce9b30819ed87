"""How many sponsored products a placement may still show a visitor. Exact: a page never shows more than this."""

from affinity.record import VisitorRecord
from auction.placement import VisitorLimit


def sponsored_left(
    limit: VisitorLimit,
    record: VisitorRecord | None,
    placement_id: str,
    now_ms: int,
    day_starts_ms: int,
    session_gap_ms: int,
) -> int:
    """Return how many sponsored products the placement may show the visitor now, across all advertisers.

    A session goes on while the visitor does something, or is shown something sponsored here, at least every
    `session_gap_ms`. The cool-down counts the products shown since the last click here, or since the last time nothing
    sponsored was shown here for its `seconds`, whichever is later.
    """
    shown = None if record is None else record.shown.get(placement_id)
    times = [] if shown is None else shown.at_ms
    left = 1_000_000
    if limit.day is not None:
        left = min(left, limit.day - sum(at_ms >= day_starts_ms for at_ms in times))
    if limit.session is not None:
        began_ms = now_ms
        if record is not None and record.events and now_ms - record.events[-1].at_ms <= session_gap_ms:
            began_ms = min(now_ms, record.session_began_ms)
        left = min(left, limit.session - _run_length(times, began_ms, session_gap_ms))
    if limit.cool_down_after_unclicked is not None:
        cool_down = limit.cool_down_after_unclicked
        clicked_at_ms = 0 if shown is None else shown.clicked_at_ms
        unclicked = [at_ms for at_ms in times if at_ms > clicked_at_ms]
        left = min(left, cool_down.count - _run_length(unclicked, now_ms, cool_down.seconds * 1000 - 1))
    return max(0, left)


def _run_length(times: list[int], since_ms: int, gap_ms: int) -> int:
    """Count the times from `since_ms` on, and those before with no more than `gap_ms` from one to the next."""
    count = 0
    for at_ms in reversed(times):
        if since_ms - at_ms > gap_ms:
            break
        since_ms = min(since_ms, at_ms)
        count += 1
    return count
