"""What stands in for history: products by category and brand, visitors without any by their segments."""

import random
from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np
import pytest

from affinity.catalog import Product
from affinity.computed import CustomerScale
from affinity.kernel import CONTEXT_SIZE_MAX, KINSHIP_COUNT, share_among_kin_nb
from affinity.kinds import kinds_of, read_attributes
from affinity.matching import Happening
from affinity.model import AffinityModel, BoundModel, active_model, load_model
from affinity.navigation import Action
from affinity.navigation_log import LogLine, NavigationLog
from affinity.profile import ProfileDraft
from affinity.rank import train
from affinity.record import VisitorRecord
from affinity.segment_taste import NO_TASTE, SegmentTaste, TasteCounts
from affinity.sessions import SESSION_GAP_MS, read_contexts, read_sessions
from affinity.settings import Settings
from affinity.targets import compile_targets
from affinity.train import START, train_model
from affinity.view import view_visitor
from tests.affinity.naive import share_among_kin

NOW_MS = 1_700_000_000_000
CATEGORY_COUNT, PER_CATEGORY = 30, 80
NEW = [
    Product(product_id="new-brand", product_type="C > c3", brand="b1"),
    Product(product_id="new-other", product_type="C > c3", brand="b9"),
    Product(product_id="new-elsewhere", product_type="C > c4", brand="b9"),
    Product(product_id="new-nowhere"),
]


def catalogue() -> list[Product]:
    return [
        Product(product_id=f"p{number}", product_type=f"C > c{number % CATEGORY_COUNT}", brand=f"b{number % 7}")
        for number in range(CATEGORY_COUNT * PER_CATEGORY)
    ] + NEW


def sessions_of(products: Sequence[Product], session_count: int = 2_500) -> list[LogLine]:
    """Visitors who look at four products of one category, mostly of one brand; most products are hardly ever seen."""
    rng = random.Random(5)
    by_category: dict[str | None, list[Product]] = {}
    for product in products:
        if not product.product_id.startswith("new"):
            by_category.setdefault(product.product_type, []).append(product)
    lines = []
    for visitor in range(session_count):
        among = by_category[rng.choice(sorted(by_category, key=str))]
        brand = rng.choice(among).brand
        of_brand = [product for product in among if product.brand == brand]
        for place in range(4):
            product = rng.choice(of_brand if rng.random() < 0.6 else among)
            at_ms = NOW_MS + visitor * 10_000 + place * 1_000
            lines.append(LogLine(visitor.to_bytes(16), at_ms, "view_item", 0, product.product_id))
    return lines


def looks(*product_ids: str) -> list[Happening]:
    return [Happening(NOW_MS + place * 1000, Action.VIEW_ITEM, one) for place, one in enumerate(product_ids)]


def learn(lines: list[LogLine], products: Sequence[Product]) -> AffinityModel:
    return train_model(read_sessions(lines, 10_000), NOW_MS, tuned=START, products=products)


@pytest.fixture(scope="module")
def lines() -> list[LogLine]:
    return sessions_of(catalogue())


@pytest.fixture(scope="module")
def model(lines: list[LogLine]) -> AffinityModel:
    return learn(lines, catalogue())


@pytest.fixture(scope="module")
def bound(model: AffinityModel) -> BoundModel:
    products = catalogue()
    return model.bind([product.product_id for product in products], read_attributes(products))


def gains(bound: BoundModel, events: list[Happening]) -> dict[str, int]:
    """Return by how many parts per million products' qualities are above the base for a visitor."""
    ranked = bound.rank_visitor(events, NOW_MS)
    gained = ranked.quality_ppm - bound.base_quality_ppm[ranked.product_row]
    return {bound.product_ids[row]: int(ppm) for row, ppm in zip(ranked.product_row, gained, strict=True)}


def test_a_new_product_has_in_auctions_what_its_category_and_brand_suggest(bound: BoundModel) -> None:
    gained = gains(bound, looks("p903", "p393"))  # both of c3; the last one of brand b1
    assert gained["new-brand"] > gained["new-other"] > 0
    assert "new-elsewhere" not in gained
    assert "new-nowhere" not in gained


def test_who_looked_at_a_new_product_or_at_a_list_alone_is_ranked_for_by_them(bound: BoundModel) -> None:
    assert gains(bound, looks("new-brand"))["new-other"] > 0
    listed = [Happening(NOW_MS, Action.VIEW_ITEM_LIST, category_id="C > c3")]
    gained = gains(bound, listed)
    assert gained["new-brand"] > 0
    assert "new-elsewhere" not in gained
    assert "new-elsewhere" in gains(bound, [Happening(NOW_MS, Action.VIEW_ITEM_LIST, category_id="C > c4")])


def test_rows_ascend_each_once_and_affinity_is_a_share(bound: BoundModel) -> None:
    ranked = bound.rank_visitor(looks("p33", "p4", "p903"), NOW_MS)
    rows = ranked.product_row.tolist()
    assert rows == sorted(set(rows))
    assert len(ranked.quality_ppm) == len(ranked.affinity) == len(rows)
    assert ranked.affinity.max() == 1
    assert (ranked.affinity >= 0).all()


def test_probabilities_of_candidates_and_of_others_do_not_exceed_one(bound: BoundModel) -> None:
    for events in (looks("p903", "p393"), looks("p33"), looks("new-brand")):
        probabilities = [2 * gain / 1_000_000 for gain in gains(bound, events).values()]
        assert 0.1 < sum(probabilities) < 1.1


def test_what_was_held_back_is_likelier_with_the_back_off_and_as_often_as_predicted(model: AffinityModel) -> None:
    metrics = model.metrics
    assert metrics["back_off_strength"] > 0
    assert metrics["scarce_product_case_count"] >= 20
    assert metrics["scarce_product_log_loss"] < metrics["scarce_product_log_loss_without"] - 0.5
    assert metrics["other_product_log_loss"] < metrics["other_product_log_loss_without"] - 0.5
    assert 0.5 < metrics["scarce_product_calibration_ratio"] < 2.0


def test_categories_that_tell_nothing_change_nothing(lines: list[LogLine]) -> None:
    rng = random.Random(2)
    products = catalogue()
    types = [product.product_type for product in products]
    rng.shuffle(types)
    shuffled = [
        Product(product_id=product.product_id, product_type=path, brand=rng.choice("xyz"))
        for product, path in zip(products, types, strict=True)
    ]
    ids = [product.product_id for product in shuffled]
    model = learn(lines, shuffled)
    assert model.metrics["back_off_strength"] == 0
    assert not model.learnt.kin_weight.any()
    attributes = read_attributes(shuffled)
    for events in (looks("p3"), looks("p903", "p33")):
        with_attributes = model.bind(ids, attributes).rank_visitor(events, NOW_MS)
        without = learn(lines, []).bind(ids).rank_visitor(events, NOW_MS)
        assert with_attributes.product_row.tolist() == without.product_row.tolist()
        assert with_attributes.quality_ppm.tolist() == without.quality_ppm.tolist()


def test_the_kernel_agrees_with_the_plain_sharing_out() -> None:
    rng = random.Random(8)
    paths = [None, "A", "A > x", "A > y", "B", "B > z", "B > z > q"]
    for _ in range(200):
        products = [
            Product(product_id=f"p{number}", product_type=rng.choice(paths), brand=rng.choice(["", "u", "v"]))
            for number in range(rng.randrange(1, 30))
        ]
        attributes = read_attributes(products)
        kinds = kinds_of(attributes, np.array([float(rng.randrange(9)) for _ in products]))
        events = [
            (rng.randrange(-1, len(attributes.category_row)), rng.choice([-1, 0, 1]), back)
            for back in sorted((rng.randrange(3) for _ in range(rng.randrange(9))), reverse=True)
        ]
        candidate = rng.sample(range(len(products)), rng.randrange(min(4, len(products))))
        weight = np.array([rng.uniform(0.1, 5.0) for _ in range(KINSHIP_COUNT)])
        product, share = np.zeros(60, np.int32), np.zeros(60, np.float32)
        mark = np.zeros(len(products), np.int32)
        count = share_among_kin_nb(
            np.array(events, np.int32).reshape(-1, 3),
            kinds,
            np.array([*candidate, -1], np.int32),
            weight,
            mark,
            product,
            share,
        )
        expected = share_among_kin(events, products, kinds, candidate, weight)
        got = dict(zip(product[:count].tolist(), share[:count].tolist(), strict=True))
        assert got.keys() == expected.keys()
        for one, value in got.items():
            assert value == pytest.approx(expected[one], rel=1e-4)
        assert not mark.any()


def test_the_likeliest_are_kept_where_there_are_too_many() -> None:
    products = [Product(product_id=f"p{number}", product_type="A", brand="u" * (number % 2)) for number in range(300)]
    seen = np.repeat([0.0, 9.0], 150)
    kinds = kinds_of(read_attributes(products), seen)
    unseen, known = kinds.usual[0], kinds.usual[-1]
    weight = np.ones(KINSHIP_COUNT)
    weight[3:6] = 2.0  # of the last category, the brand itself
    product, share = np.zeros(180, np.int32), np.zeros(180, np.float32)
    mark, nothing = np.zeros(300, np.int32), np.zeros(0, np.int32)
    about = np.array([[0, kinds.brand[1], 0]], np.int32)
    assert share_among_kin_nb(about, kinds, nothing, weight, mark, product, share) == 180
    total = 225 * (unseen + known)
    assert set(product[:75].tolist()) == set(range(1, 150, 2))  # half of the room for what nobody saw
    assert set(product[:90].tolist()) < set(range(150))
    assert share[:90].tolist() == pytest.approx([2 * unseen / total] * 75 + [unseen / total] * 15)
    assert set(product[90:165].tolist()) == set(range(151, 300, 2))
    assert share[90:].tolist() == pytest.approx([2 * known / total] * 75 + [known / total] * 15)
    crowd = [Product(product_id=f"p{number}", product_type="A") for number in range(CONTEXT_SIZE_MAX + 1)]
    too_large = kinds_of(read_attributes(crowd), np.zeros(len(crowd)))
    mark = np.zeros(len(crowd), np.int32)
    assert share_among_kin_nb(about, too_large, nothing, weight, mark, product, share) == 0


# --- visitors without history ----------------------------------------------------------------------------------------


def members(count: int = 400) -> dict[bytes, set[str]]:
    return {visitor.to_bytes(16): {"parent" if visitor % 3 else "runner", "all"} for visitor in range(count)}


def taste_of(segments_of: dict[bytes, Collection[str]], *, tells: bool = True) -> SegmentTaste:
    """Return what is learnt where three in four looks of runners are at shoes, of parents at toys."""
    rng = random.Random(4)
    category_of = {f"{kind}{number}": kind for kind in ("shoes", "toys", "food") for number in range(20)}
    counts = TasteCounts(segments_of, category_of)
    lines = []
    for pseudonym, segments in segments_of.items():
        liked = ("shoes" if "runner" in segments else "toys") if tells else rng.choice(["shoes", "toys"])
        for _ in range(rng.randrange(1, 5)):
            kind = liked if rng.random() < 0.75 else "food"
            lines.append(LogLine(pseudonym, NOW_MS, "view_item", 0, f"{kind}{rng.randrange(20)}"))
    assert list(counts.watch(lines)) == lines
    return counts.learn()


def test_segments_tell_of_a_visitor_who_did_nothing_yet(lines: list[LogLine], tmp_path: Path) -> None:
    taste = taste_of(dict(members()))
    assert set(taste.segment_id) == {"runner", "parent", "all"}
    assert taste.segment_id[0] == "runner"  # the smaller group differs most
    model = train_model(read_sessions(lines, 10_000), NOW_MS, tuned=START, taste=taste)
    model.save(tmp_path)
    path = active_model(tmp_path)
    assert path is not None
    products = [Product(product_id=kind, product_type=kind) for kind in ("food", "shoes", "toys", "lamps")]
    bound = load_model(path).bind([one.product_id for one in products], read_attributes(products))
    record = VisitorRecord(b"v" * 16)
    targets = compile_targets([], [])

    def qualities(*segments: str) -> dict[str, int]:
        record.profile, record.view = ProfileDraft(segments=list(segments)), None
        view = view_visitor(
            record, targets, bound, NOW_MS, pseudonym=b"v" * 16, settings=Settings(), scale=CustomerScale()
        )
        named = {bound.product_ids[row]: int(ppm) for row, ppm in zip(view.product_row, view.quality_ppm, strict=True)}
        return {one: named.get(one, int(bound.base_quality_ppm[row])) for row, one in enumerate(bound.product_ids)}

    runner, parent, other = qualities("runner"), qualities("parent"), qualities("gardener")
    assert runner["shoes"] > 1.5 * parent["shoes"]
    assert parent["toys"] > 1.5 * runner["toys"]
    assert runner["lamps"] == parent["lamps"] == other["lamps"]
    assert len(set(other.values())) == 1
    assert qualities("runner", "gardener") == runner
    record.note(Happening(NOW_MS, Action.VIEW_ITEM, "p903"), None, Settings())
    assert qualities("runner")["toys"] >= other["toys"]  # who did something is known by that


def test_segments_that_tell_nothing_or_have_few_members_are_not_used() -> None:
    assert taste_of(dict(members()), tells=False) is NO_TASTE
    assert (
        taste_of({visitor.to_bytes(16): {"runner" if visitor % 9 else "parent"} for visitor in range(49)}) is NO_TASTE
    )
    few = {visitor.to_bytes(16): {"runner" if visitor % 9 else "parent"} for visitor in range(200)}
    assert "parent" not in taste_of(few).segment_id  # 23 of them


def test_training_reads_segments_and_catalogue(lines: list[LogLine], tmp_path: Path) -> None:
    log = NavigationLog(tmp_path / "navigation", 10_000_000)
    log.append(lines, NOW_MS)
    category_of = {product.product_id: product.product_type for product in catalogue()}
    segments_of = {line.pseudonym: {f"fond-of-{category_of[line.product_id or '']}"} for line in lines}
    trained = train(
        log,
        tmp_path / "models",
        NOW_MS,
        lambda done, total: None,
        START,
        products=catalogue(),
        segments_of={visitor: {next(iter(named))[:-1]} for visitor, named in segments_of.items()},
    )
    assert trained.metrics["back_off_strength"] > 0
    assert trained.metrics["segment_gain"] > 0


def test_what_a_visitor_was_about_is_read_as_sessions_are() -> None:
    row_of, category, brand, category_row = {"a": 0, "b": 1}, [4, 5], [7, 8], {"A": 4, "B": 5, "C": 6}
    events = [
        *looks("a"),
        Happening(NOW_MS + 1000, Action.SEARCH, query="red"),
        Happening(NOW_MS + 2000, Action.VIEW_ITEM_LIST, category_id="C"),
        Happening(NOW_MS + 3000 + SESSION_GAP_MS, Action.PURCHASE, "b"),
        Happening(NOW_MS + 4000 + SESSION_GAP_MS, Action.VIEW_ITEM, "gone", category_id="A"),
        Happening(NOW_MS + 5000 + SESSION_GAP_MS, Action.REMOVE_FROM_CART, "b", category_id="B"),
    ]
    about = read_contexts(events, 10, row_of, category, brand, category_row)
    assert about.tolist() == [[4, 7, 1], [6, -1, 1], [5, 8, 0], [4, -1, 0]]
    assert read_contexts(events, 2, row_of, category, brand, category_row).tolist() == about.tolist()[2:]
    assert read_contexts([], 2, row_of, category, brand, category_row).shape == (0, 3)
