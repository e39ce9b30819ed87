"""Run a scenario: its worlds one after another, their measures, and the files a run leaves behind."""

import shutil
from collections import Counter
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from time import perf_counter, process_time
from typing import TYPE_CHECKING

import msgspec

from sim.chance import key_of
from sim.errors import SimRefused
from sim.market import Market, Progress, WorldResult
from sim.measure import WORLDS_FOR_INTERVALS, measure
from sim.report import in_words, render_report, shown
from sim.result import BidderResult, Books, RunResult, Timing, append_run, encode_result, write_whole
from sim.scenario import Scenario, read_scenario, scenario_hash
from sim.site import CURRENCY
from sim.stopwatch import Stopwatch

if TYPE_CHECKING:
    from rich.console import Console


def run(scenario: Scenario, progress: Progress | None = None) -> RunResult:
    """Run every world of the scenario and return what it is judged by.

    Args:
        scenario: checked; its seed is where all chance comes from.
        progress: told (visits finished, visits in all).

    Raises:
        SimRefused: a policy, the catalogue or the books; the message says what and where.
    """
    return run_timed(scenario, progress)[0]


def run_timed(
    scenario: Scenario, progress: Progress | None = None, receipts: Path | None = None
) -> tuple[RunResult, Timing]:
    """Run the scenario and also say where the time went; keep every auction's receipt in a folder, if one is given."""
    started, started_cpu = perf_counter(), process_time()
    watch = Stopwatch()
    worlds: list[WorldResult] = []
    visits = scenario.traffic.days * scenario.traffic.sessions_per_day
    for row in range(scenario.run.repeats):

        def tell(finished: int, _: int, before: int = row * visits) -> None:
            if progress is not None:
                progress(before + finished, visits * scenario.run.repeats)

        worlds.append(Market(scenario, world_seed(scenario.seed, row), watch, receipts).run(tell))
        _check_books(worlds[-1].books)
    with watch.part("measures"):
        measures = measure([world.sessions for world in worlds], scenario.run.bootstrap, scenario.seed)
    auction_count = sum(world.auction_count for world in worlds)
    result = RunResult(
        version=version("endcap"),
        scenario_name=scenario.name,
        scenario_hash=scenario_hash(scenario),
        seed=scenario.seed,
        sentence=scenario.sentence,
        repeats=scenario.run.repeats,
        intervals_over="worlds" if scenario.run.repeats >= WORLDS_FOR_INTERVALS else "sessions",
        auction_count=auction_count,
        measures=measures,
        bidders=worlds[0].bidders,
        periods=worlds[0].periods,
        placements=worlds[0].placements,
        books=_all_books([world.books for world in worlds]),
    )
    return result, Timing(perf_counter() - started, process_time() - started_cpu, dict(watch.parts_s), auction_count)


def world_seed(seed: int, row: int) -> int:
    """Return the seed of one of a scenario's worlds."""
    return key_of(seed, "world", row)


def run_scenario(
    path: str | Path,
    out_dir: str | Path,
    seed: int | None = None,
    console: "Console | None" = None,
    *,
    keep_receipts: bool = False,
) -> int:
    """Run a scenario from the command line: progress, a summary, `measures.json`, `report.html` and `runs.jsonl`.

    Args:
        path: a scenario file, or the name of a shipped one.
        out_dir: gets a folder `<name>-<seed>` and the line in `runs.jsonl`.
        seed: instead of the scenario's own.
        console: where to print; a new one by default.
        keep_receipts: also keep every auction's receipt, in `receipts` beside the report, for replay.

    Returns:
        The command's exit code: 0, or 2 where something was refused and no result written.
    """
    from rich.console import Console
    from rich.markup import escape

    console = console or Console()
    partial = Path(out_dir) / ".receipts.partial"
    shutil.rmtree(partial, ignore_errors=True)
    try:
        scenario = read_scenario(path)
        if seed is not None:
            scenario = msgspec.structs.replace(scenario, seed=seed)
        result, timing = _with_progress(scenario, console, partial if keep_receipts else None)
    except SimRefused as refusal:
        shutil.rmtree(partial, ignore_errors=True)
        console.print(f"[red]refused:[/] {escape(str(refusal))}", highlight=False, soft_wrap=True)
        return refusal.exit_code
    folder = Path(out_dir) / f"{scenario.name}-{scenario.seed}"
    if keep_receipts:
        folder.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(folder / "receipts", ignore_errors=True)
        partial.replace(folder / "receipts")
    write_whole(folder / "measures.json", encode_result(result))
    write_whole(folder / "report.html", render_report(result, CURRENCY).encode())
    append_run(Path(out_dir) / "runs.jsonl", result)
    _summarise(result, timing, folder, console)
    return 0


def targets_in_words(bidders: Sequence[BidderResult]) -> list[str]:
    """Say how near bidders came to their target ROAS, those of one policy and one target together."""
    reached: dict[tuple[str, int], list[int]] = {}
    for bidder in bidders:
        if bidder.target_roas_ppm is not None:
            both = reached.setdefault((bidder.policy, bidder.target_roas_ppm), [0, 0, 0])
            for place, amount in enumerate((1, bidder.sales_micros, bidder.spend_micros)):
                both[place] += amount
    return [
        f"target ROAS {target_ppm / 1_000_000:.2f}, {count} bidders, {policy}: "
        + (f"reached {sales / spend:.2f}" if spend else "nothing was spent")
        for (policy, target_ppm), (count, sales, spend) in sorted(reached.items())
    ]


def _check_books(books: Books) -> None:
    """Stop loudly where the ledger broke one of its own promises."""
    if books.sum_micros != 0 or books.overspent_micros != 0:
        raise AssertionError(f"the books sum to {books.sum_micros} and overspend by {books.overspent_micros} micros")


def _all_books(books: list[Books]) -> Books:
    events: Counter[str] = Counter()
    for one in books:
        events.update(one.events)
    return Books(
        sum_micros=sum(one.sum_micros for one in books),
        overspent_micros=sum(one.overspent_micros for one in books),
        entry_count=sum(one.entry_count for one in books),
        billed_micros=sum(one.billed_micros for one in books),
        events=dict(sorted(events.items())),
    )


def _with_progress(scenario: Scenario, console: "Console", receipts: Path | None) -> tuple[RunResult, Timing]:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(f"{scenario.name}: visits", total=None)
        return run_timed(scenario, lambda done, total: bar.update(task, completed=done, total=total), receipts)


def _summarise(result: RunResult, timing: Timing, folder: Path, console: "Console") -> None:
    from rich.table import Table

    table = Table(title=f"{result.scenario_name}, seed {result.seed}", title_justify="left")
    table.add_column("measure")
    for head in ("value", "low", "high"):
        table.add_column(head, justify="right")
    for one in result.measures:
        ends = [shown(end, one.unit, "") if end is not None else "–" for end in (one.low, one.high)]
        table.add_row(in_words(one.name), shown(one.value, one.unit, CURRENCY), *ends)
    console.print(table)
    console.print(f"low and high: 90 % by resampling {result.intervals_over}", style="dim")
    for line in targets_in_words(result.bidders):
        console.print(line, highlight=False)
    console.print(
        f"books: debits less credits {result.books.sum_micros}, billed over a budget {result.books.overspent_micros}, "
        f"{result.books.entry_count:,} entries"
    )
    parts = ", ".join(
        f"{name} {spent:.1f}" for name, spent in sorted(timing.parts_s.items(), key=lambda part: -part[1])
    )
    console.print(
        f"{timing.auction_count:,} auctions in {timing.wall_s:.1f} s, of the processor {timing.processor_s:.1f} s "
        f"({timing.auctions_per_s:,.0f} a second of it): {parts}",
        style="dim",
    )
    console.print(f"report: {folder / 'report.html'}", soft_wrap=True)
