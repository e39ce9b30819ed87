"""How well the model ranks, on public data, through the commands a shop uses: navigation import, affinity train, rank.

Run as `python -m tests.bench.bench_ranking FOLDER [NAME…]`, or with the folder in ENDCAP_BENCH_DATA. Nothing of the
data is shipped: the folder holds the parquet files below, and pyarrow must be installed.

- *retailrocket*, *yoochoose1_64*: `<name>_train_sessions` (session, pos, item) and `<name>_test_pairs` (prefix,
  target). Every pair is ranked, the whole catalogue are candidates.
- *cj*: `cj_transactions_w01_43` (household_id, basket_id, product_id, week, transaction_timestamp). Learnt from weeks 1
  to 38; of every household's first basket after that, the exact products are to be foreseen. Recall is the share of
  the basket's products among the 20, MRR is by the first of them.

The figures to beat: V-SKNN's, measured on the same pairs; of baskets, a household's own purchases, each counting
0.95 less a week ago, then best-sellers, measured here.
"""

import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

TOP_COUNT = 20
LAST_WEEK_LEARNT = 38
WEEK_S = 604_800
SESSIONS_BEGIN = datetime(2024, 1, 1, tzinfo=UTC)  # of data without times: one session a minute
V_SKNN = {"retailrocket": (0.6606, 0.4300), "yoochoose1_64": (0.6968, 0.2938)}
NAMES = (*V_SKNN, "cj")


class Question(NamedTuple):
    """What a visitor did, as `affinity rank` reads it, and the products that came next."""

    navigation: list[dict[str, Any]]
    wanted: set[str]


class DataSet(NamedTuple):
    """Navigation to learn from, questions, and Recall@20 and MRR@20 to beat."""

    navigation: Iterable[dict[str, Any]]
    questions: list[Question]
    to_beat: tuple[float, float]


def read_columns(folder: Path, name: str, *columns: str) -> list[tuple[Any, ...]]:
    """Return the rows of a parquet file."""
    from pyarrow import parquet  # type: ignore[import-not-found]

    table = parquet.read_table(folder / f"{name}.parquet", columns=list(columns))
    return list(zip(*(table[column].to_pylist() for column in columns), strict=True))


def read_session_set(folder: Path, name: str) -> DataSet:
    """Return clicks of sessions, and every beginning of a later one with its next click."""

    def navigation() -> Iterator[dict[str, Any]]:
        for session, place, item in read_columns(folder, f"{name}_train_sessions", "session", "pos", "item"):
            at = SESSIONS_BEGIN + timedelta(minutes=session, seconds=place)
            yield look(item) | {"visitor_id": f"s{session}", "occurred_at": at.isoformat()}

    pairs = read_columns(folder, f"{name}_test_pairs", "prefix", "target")
    questions = [Question([look(item) for item in prefix], {str(target)}) for prefix, target in pairs]
    return DataSet(navigation(), questions, V_SKNN[name])


def look(item: int) -> dict[str, Any]:
    return {"action": "view_item", "product_id": str(item)}


def read_basket_set(folder: Path) -> DataSet:
    """Return purchases of households, and what their first basket of later weeks holds."""
    columns = ("household_id", "basket_id", "product_id", "week", "transaction_timestamp")
    before: list[dict[str, Any]] = []
    by_household: dict[str, list[dict[str, Any]]] = defaultdict(list)
    later: dict[str, dict[tuple[datetime, int], set[str]]] = defaultdict(lambda: defaultdict(set))
    for household, basket, product, week, at in read_columns(folder, "cj_transactions_w01_43", *columns):
        visitor_id, product_id = f"h{household}", str(product)
        if week <= LAST_WEEK_LEARNT:
            event = {"action": "purchase", "product_id": product_id, "occurred_at": at.replace(tzinfo=UTC).isoformat()}
            by_household[visitor_id].append(event)
            before.append(event | {"visitor_id": visitor_id})
        else:
            later[visitor_id][at, basket].add(product_id)
    questions = []
    for visitor_id, baskets in later.items():
        own = sorted(by_household[visitor_id], key=lambda event: str(event["occurred_at"]))
        questions.append(Question(own, baskets[min(baskets)]))
    best_sellers = [product for product, _ in Counter(event["product_id"] for event in before).most_common(200)]
    own_first = [own_then_best(question.navigation, best_sellers) for question in questions]
    return DataSet(before, questions, foresight(own_first, questions))


def own_then_best(navigation: list[dict[str, Any]], best_sellers: list[str]) -> list[str]:
    """Return the products bought most, each counting 0.95 less a week ago, then the shop's best-sellers."""
    weight: dict[str, float] = defaultdict(float)
    for event in navigation:
        weeks = datetime.fromisoformat(event["occurred_at"]).timestamp() / WEEK_S
        weight[event["product_id"]] += 0.95 ** (2_600 - weeks)
    own = sorted(weight, key=weight.__getitem__, reverse=True)
    return list(dict.fromkeys([*own, *best_sellers]))[:TOP_COUNT]


def foresight(rankings: list[list[str]], questions: list[Question]) -> tuple[float, float]:
    """Return Recall@20 and MRR@20, means over the questions."""
    recall = reciprocal_rank = 0.0
    for ranking, question in zip(rankings, questions, strict=True):
        places = [place for place, product_id in enumerate(ranking, 1) if product_id in question.wanted]
        recall += len(places) / len(question.wanted)
        reciprocal_rank += 1 / places[0] if places else 0.0
    return recall / len(questions), reciprocal_rank / len(questions)


def run(data_dir: Path, *words: str, lines: str = "") -> tuple[str, float]:
    """Run an endcap command; return its output and the seconds it took."""
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "bidder_api", *words, "--data-dir", str(data_dir)],
        input=lines,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return done.stdout, time.perf_counter() - began


def measure(name: str, data: DataSet) -> None:
    """Import, train, rank, and print the figures beside those to beat."""
    with tempfile.TemporaryDirectory() as folder:
        data_dir, file = Path(folder) / "data", Path(folder) / "navigation.jsonl"
        with file.open("w", encoding="utf-8") as out:
            out.writelines(json.dumps(event) + "\n" for event in data.navigation)
        _, import_s = run(data_dir, "navigation", "import", str(file))
        _, train_s = run(data_dir, "affinity", "train")
        lines = [json.dumps({"navigation": one.navigation, "limit": TOP_COUNT}) for one in data.questions]
        answers, rank_s = run(data_dir, "affinity", "rank", lines="\n".join(lines) + "\n")
    rankings = [json.loads(answer)["product_ids"] for answer in answers.splitlines()]
    got = foresight(rankings, data.questions)
    for figure, value, to_beat in zip(("Recall@20", "MRR@20"), got, data.to_beat, strict=True):
        verdict = "better" if value > to_beat else "NOT better"
        print(f"{name}: {figure} {value:.2%} against {to_beat:.2%}: {verdict} ({value / to_beat - 1:+.1%})")
    per_line = rank_s / max(len(lines), 1) * 1e3
    print(
        f"{name}: {len(lines):,} questions; imported in {import_s:.0f} s, trained in {train_s:.0f} s, "
        f"ranked in {math.ceil(rank_s)} s ({per_line:.1f} ms a line)",
        flush=True,
    )


def main() -> int:
    """Measure every set, or those named."""
    words = sys.argv[1:]
    folder = os.environ.get("ENDCAP_BENCH_DATA") or (words.pop(0) if words else "")
    unknown = set(words) - set(NAMES)
    if not folder or unknown:
        print(f"{' '.join(sorted(unknown))}\n{__doc__}", file=sys.stderr)
        return 2
    for name in words or NAMES:
        measure(name, read_basket_set(Path(folder)) if name == "cj" else read_session_set(Path(folder), name))
    return 0


if __name__ == "__main__":
    sys.exit(main())
