"""What `endcap affinity rank`, `train` and `evaluate` do: functions of files and lines, without a server."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Protocol

import msgspec
import numpy as np
from msgspec import Meta, Struct

from affinity.catalog import CategoryId, PriceMicros, Product, ProductId
from affinity.matching import Happening
from affinity.model import AffinityModel, Ranker, activate_model, active_model, is_worse, read_metrics
from affinity.navigation import Action, EventId, Moment, QueryText, VisitorId
from affinity.navigation_log import LogLine, NavigationLog
from affinity.record import VisitorRecord
from affinity.segment_taste import TasteCounts
from affinity.sessions import read_sessions
from affinity.train import SESSION_COUNT_MAX, TOP_COUNT, Evaluation, Progress, evaluate_model, train_model

LIMIT_MAX = 1_000


class RankEvent(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One event of a line to rank; without times, events are in order and of one session."""

    product_id: ProductId | None = None
    action: Action = Action.VIEW_ITEM
    occurred_at: Moment | None = None
    visitor_id: VisitorId | None = None
    event_id: EventId | None = None
    category_id: CategoryId | None = None
    query: QueryText | None = None
    quantity: Annotated[int, Meta(ge=0, le=10**6)] | None = None
    price_micros: PriceMicros | None = None
    traffic_source: Annotated[str, Meta(max_length=128)] | None = None


class RankLine(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One line of `endcap affinity rank`."""

    navigation: Annotated[list[RankEvent], Meta(max_length=10_000)] = []
    visitor_id: VisitorId | None = None
    limit: Annotated[int, Meta(ge=1, le=LIMIT_MAX)] = 20


class Ranking(Struct, frozen=True):
    """The products ranked for one line, the best first; scores are shares of all scores."""

    product_ids: list[str]
    scores: list[float]


class Known(Protocol):
    """What knows visitors: a process's own, or a reader of shared ones."""

    def pseudonym(self, visitor_id: str) -> bytes:
        """Return what a visitor is kept under."""

    def record(self, pseudonym: bytes) -> VisitorRecord | None:
        """Return what is known of a visitor; None where nothing is."""


class CatalogueRanker:
    """Ranks the whole catalogue for one visitor after another.

    Args:
        model: what is ranked by.
        products: the catalogue; empty stands for the products the model knows.
        now_ms: when a visitor comes of whom a line says no more than the id.
        visitors: returns what is known of visitors; called once, when a line first names one.
    """

    def __init__(
        self,
        model: AffinityModel,
        products: Sequence[Product],
        now_ms: int,
        visitors: Callable[[], Known] | None = None,
    ) -> None:
        self._model = model
        self._kind_of = {product.product_id: (product.product_type, product.brand) for product in products}
        self._allowed = frozenset(self._kind_of or model.product_ids)
        self._ranker = Ranker(model)
        self._now_ms = now_ms
        views = np.diff(model.learnt.item_first)
        by_views = [model.product_ids[item] for item in np.argsort(-views, kind="stable")]
        unseen = sorted(self._allowed - model.item_of.keys())
        self._fallback = [*(one for one in by_views if one in self._allowed), *unseen]
        self._of_kind: dict[tuple[str | None, str | None], list[str]] = {}
        for product_id in self._fallback:
            category_id, brand = self._kind_of.get(product_id, (None, ""))
            if category_id is not None:
                self._of_kind.setdefault((category_id, brand), []).append(product_id)
                self._of_kind.setdefault((category_id, None), []).append(product_id)
        self._open_visitors = visitors
        self._visitors: Known | None = None

    def rank(self, body: object) -> Ranking:
        """Return the ranking of one decoded line.

        Raises:
            ValidationError: the line is not what `RankLine` says.
        """
        line = msgspec.convert(body, RankLine)
        events = [*self._known_events(line.visitor_id), *_happenings(line.navigation)]
        if any(event.occurred_at is not None for event in line.navigation):
            events.sort(key=lambda event: event.at_ms)
        now_ms = events[-1].at_ms if line.navigation else self._now_ms
        alike = self._alike(events)
        scores: dict[str, float] = {}
        if not alike or any(event.product_id in self._model.item_of for event in events):
            item, share, _ = self._ranker.rank(events, now_ms)
            for one, score in zip(item.tolist(), share.tolist(), strict=True):
                product_id = self._model.product_ids[one]
                if product_id in self._allowed:
                    scores[product_id] = score
        for product_id in chain(*alike, self._fallback):
            if len(scores) >= line.limit:
                break
            scores.setdefault(product_id, 0.0)
        return Ranking(list(scores)[: line.limit], list(scores.values())[: line.limit])

    def _alike(self, events: Sequence[Happening]) -> list[list[str]]:
        """Return products of the categories a visitor went through, the last first: same brand, then any."""
        kinds: dict[tuple[str | None, str | None], None] = {}
        for event in reversed(events):
            category_id, brand = self._kind_of.get(event.product_id or "", (event.category_id, None))
            kinds[category_id, brand] = None
            kinds[category_id, None] = None
        return [self._of_kind[kind] for kind in kinds if kind in self._of_kind]

    def _known_events(self, visitor_id: str | None) -> list[Happening]:
        if visitor_id is None or self._open_visitors is None:
            return []
        if self._visitors is None:
            self._visitors = self._open_visitors()
        record = self._visitors.record(self._visitors.pseudonym(visitor_id))
        return [] if record is None else list(record.events)


def read_log(log: NavigationLog) -> Iterator[LogLine]:
    """Yield every line of every file of the log, each event id once."""
    seen: set[int] = set()
    for name in log.segments():
        for line in log.read(name):
            if line.event:
                if line.event in seen:
                    continue
                seen.add(line.event)
            yield line


class Trained(Struct, frozen=True):
    """A model that was saved.

    Attributes:
        path: where.
        metrics: how well it did on sessions kept from it.
        was_active: metrics of the model in use before; empty where there was none.
        is_active: whether it is in use now.
    """

    path: Path
    metrics: dict[str, float]
    was_active: dict[str, float]
    is_active: bool


def train(
    log: NavigationLog,
    folder: Path,
    now_ms: int,
    progress: Progress,
    tuned: Mapping[int, float] | None = None,
    *,
    products: Sequence[Product] = (),
    segments_of: Mapping[bytes, Collection[str]] = MappingProxyType({}),
    is_forced: bool = False,
) -> Trained:
    """Learn a model from the log, save it with its metrics beside it, and put it in use unless it is worse.

    With the catalogue's `products`, those without history are ranked by category and brand; with `segments_of`
    visitors, by pseudonym, those without history by what others of their segments do. With `tuned`, the ranking's
    parameters are those and are not searched for. With `is_forced`, it is put in use even if it did worse in validation
    than the one in use.

    Raises:
        TrainingRefused: the log has no event with a product.
    """
    category_of = {one.product_id: one.product_type for one in products if one.product_type is not None}
    counts = TasteCounts(segments_of, category_of)
    sessions = read_sessions(counts.watch(read_log(log)), SESSION_COUNT_MAX)
    model = train_model(sessions, now_ms, progress, tuned=tuned, products=products, taste=counts.learn())
    active = active_model(folder)
    was_active = {} if active is None else read_metrics(active)
    path = model.save(folder)
    activates = is_forced or active is None or not is_worse(model.metrics, was_active)
    if activates:
        activate_model(path)
    elif active is not None:
        activate_model(active)  # it may have been in use as the youngest
    return Trained(path, model.metrics, was_active, activates)


def evaluate(log: NavigationLog, now_ms: int, progress: Progress, top_count: int = TOP_COUNT) -> Evaluation:
    """Return how well a model of the log's earlier sessions foresees its last tenth, beside simpler rankings.

    Raises:
        TrainingRefused: there are too few sessions.
    """
    return evaluate_model(read_sessions(read_log(log), SESSION_COUNT_MAX), now_ms, progress, top_count)


def _happenings(events: Sequence[RankEvent]) -> list[Happening]:
    known = [int(event.occurred_at.timestamp() * 1000) for event in events if event.occurred_at is not None]
    last_ms = max(known, default=1_600_000_000_000)
    return [
        Happening(
            at_ms=last_ms if event.occurred_at is None else int(event.occurred_at.timestamp() * 1000),
            action=event.action,
            product_id=event.product_id,
            category_id=event.category_id,
            query=event.query,
        )
        for event in events
    ]
