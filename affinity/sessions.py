"""Navigation as a model learns from it: products of visitors' sessions as rows, in the order of time."""

from array import array
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from affinity.kernel import SESSION_LENGTH_MAX, Trail
from affinity.matching import Happening
from affinity.navigation import Action
from affinity.navigation_log import LogLine

Int32s = NDArray[np.int32]
Int64s = NDArray[np.int64]
Float32s = NDArray[np.float32]

SESSION_GAP_MS = 1_800_000
WEEK_MS = 604_800_000
TRAIL_LENGTH_MAX = 1_000  # events of a visitor that are looked at
LOOKS = frozenset({Action.VIEW_ITEM, Action.SELECT_ITEM})
HISTORY_WEIGHT = {
    Action.VIEW_ITEM: 0.1,
    Action.SELECT_ITEM: 0.1,
    Action.ADD_TO_WISHLIST: 0.3,
    Action.ADD_TO_CART: 0.5,
    Action.PURCHASE: 1.0,
}
PURCHASE_WEIGHT = HISTORY_WEIGHT[Action.PURCHASE]
_WEIGHT_OF = {action.value: weight for action, weight in HISTORY_WEIGHT.items()}
_LOOK_OF = frozenset(action.value for action in LOOKS)


class Sessions(Struct, frozen=True, eq=False):
    """Sessions of all visitors, in the order they ended; each a run of product rows.

    Attributes:
        product_ids: of each row.
        item: (E,) product of each event, session after session.
        weight: (E,) what the event counts in a visitor's history.
        first: (S + 1,) where a session begins.
        ended_at_ms: (S,) time of its last event, ascending.
        visitor: (S,) number of the visitor, to find their earlier sessions by; without meaning outside.
    """

    product_ids: list[str]
    item: Int32s
    weight: Float32s
    first: Int64s
    ended_at_ms: Int64s
    visitor: Int64s

    def __len__(self) -> int:
        """Return how many sessions there are."""
        return len(self.first) - 1

    def between(self, begin: int, end: int) -> "Sessions":
        """Return the sessions from `begin` to before `end`."""
        first, last = self.first[begin], self.first[end]
        return Sessions(
            self.product_ids,
            self.item[first:last],
            self.weight[first:last],
            self.first[begin : end + 1] - first,
            self.ended_at_ms[begin:end],
            self.visitor[begin:end],
        )


def read_sessions(lines: Iterable[LogLine], session_count_max: int) -> Sessions:
    """Return the youngest sessions of a log: runs of a visitor's products without a pause of half an hour.

    Of one product touched several times on end (seen, then put in the cart), one event is kept, looks apart: who
    looks at it again means it.
    """
    products: dict[str, int] = {}
    visitors: dict[bytes, int] = {}
    item_list, visitor_list, at_list = array("i"), array("q"), array("q")
    weight_list, look_list = array("f"), array("b")
    for line in lines:
        counts = _WEIGHT_OF.get(line.action)
        if counts is None or line.product_id is None:
            continue
        item_list.append(products.setdefault(line.product_id, len(products)))
        visitor_list.append(visitors.setdefault(line.pseudonym, len(visitors)))
        at_list.append(line.at_ms)
        weight_list.append(counts)
        look_list.append(line.action in _LOOK_OF)
    order = np.lexsort((np.array(at_list, np.int64), np.array(visitor_list, np.int64)))
    item: Int32s = np.array(item_list, np.int32)[order]
    visitor: Int64s = np.array(visitor_list, np.int64)[order]
    at_ms: Int64s = np.array(at_list, np.int64)[order]
    weight: Float32s = np.array(weight_list, np.float32)[order]
    is_look = np.array(look_list, np.bool_)[order]
    if not len(item):
        return Sessions([], item, weight, np.zeros(1, np.int64), at_ms, visitor)
    is_new = np.ones(len(item), np.bool_)
    is_new[1:] = (visitor[1:] != visitor[:-1]) | (at_ms[1:] - at_ms[:-1] > SESSION_GAP_MS)
    is_same = np.zeros(len(item), np.bool_)
    is_same[1:] = ~is_new[1:] & (item[1:] == item[:-1]) & ~is_look[1:]
    begin, kept = np.flatnonzero(is_new), np.flatnonzero(~is_same)
    strongest = np.maximum.reduceat(weight, kept)  # of a run on one product, the strongest thing done
    ended = np.maximum.reduceat(at_ms, begin)
    by_end = np.argsort(ended, kind="stable")[-session_count_max:]
    rank = np.full(len(begin), -1, np.int64)
    rank[by_end] = np.arange(len(by_end))
    of_kept = rank[(np.cumsum(is_new) - 1)[kept]]
    place = np.argsort(of_kept, kind="stable")
    place = place[of_kept[place] >= 0]
    session = of_kept[place]
    # Of a very long session (robots, kiosks) the end is kept.
    lengths = np.bincount(session, minlength=len(by_end))
    from_end = np.repeat(np.cumsum(lengths), lengths) - np.arange(len(session))
    is_near = from_end <= SESSION_LENGTH_MAX
    place, session = place[is_near], session[is_near]
    first = np.zeros(len(by_end) + 1, np.int64)
    first[1:] = np.cumsum(np.bincount(session, minlength=len(by_end)))
    return Sessions(list(products), item[kept[place]], strongest[place], first, ended[by_end], visitor[begin[by_end]])


def read_trail(events: Sequence[Happening], row_of: Mapping[str, int]) -> Trail:
    """Return what a visitor did with the products there are, as `read_sessions` would have it; the oldest first."""
    item: list[int] = []
    weight: list[float] = []
    at_ms: list[int] = []
    back: list[int] = []
    sessions_back = 0
    later: Happening | None = None
    for event in reversed(events):
        counts, product_id = HISTORY_WEIGHT.get(event.action), event.product_id
        if counts is None or product_id is None:
            continue
        is_same = False
        if later is not None:
            is_apart = later.at_ms - event.at_ms > SESSION_GAP_MS
            sessions_back += is_apart
            is_same = not is_apart and later.product_id == product_id and later.action not in LOOKS
        later = event
        row = row_of.get(product_id)
        if row is None:
            continue
        if is_same:
            weight[-1] = max(weight[-1], counts)
            continue
        if len(item) == TRAIL_LENGTH_MAX:
            break
        item.append(row)
        weight.append(counts)
        at_ms.append(event.at_ms)
        back.append(sessions_back)
    age = (at_ms[0] - np.array(at_ms[::-1], np.float64)) / WEEK_MS if at_ms else np.zeros(0)
    return Trail(
        np.array(item[::-1], np.int32),
        np.array(weight[::-1], np.float32),
        age.astype(np.float32),
        np.array(back[::-1], np.int32) - (back[0] if back else 0),
    )


def read_contexts(
    events: Sequence[Happening],
    count_max: int,
    row_of: Mapping[str, int],
    category: Sequence[int],
    brand: Sequence[int],
    category_row: Mapping[str, int],
) -> Int32s:
    """Return (H, 3) category, brand and sessions back of a visitor's latest events, the oldest first; -1 for none.

    Args:
        events: the visitor's.
        count_max: most events.
        row_of: row of each product there is.
        category: of each row.
        brand: of each row.
        category_row: row of each category, for events that name one.
    """
    found: list[int] = []  # from the end: sessions back, brand, category of each event, the latest first
    sessions_back, later_ms, count = 0, 0, 0
    for event in reversed(events):
        product_id, action = event.product_id, event.action
        is_about = product_id is not None and action in HISTORY_WEIGHT
        if not is_about and (event.category_id is None or action is not Action.VIEW_ITEM_LIST):
            continue
        if later_ms - event.at_ms > SESSION_GAP_MS:
            sessions_back += 1
        later_ms = event.at_ms
        row = row_of.get(product_id) if is_about and product_id is not None else None
        if row is not None:
            found += (sessions_back, brand[row], category[row])
        else:
            found += (sessions_back, -1, category_row.get(event.category_id or "", -1))
        count += 1
        if count == count_max:
            break
    found.reverse()
    return np.array(found, np.int32).reshape(-1, 3)


def is_between_sessions(events: Sequence[Happening], now_ms: int) -> bool:
    """Say whether a visitor begins anew: half an hour after the last thing done, or after buying."""
    return now_ms > session_ends_ms(events)


def session_ends_ms(events: Sequence[Happening]) -> int:
    """Return until when a visitor who does nothing more goes on with their session; -1 for one who begins anew."""
    for event in reversed(events):
        if event.product_id is not None and event.action in HISTORY_WEIGHT:
            return -1 if event.action is Action.PURCHASE else event.at_ms + SESSION_GAP_MS
    return -1
