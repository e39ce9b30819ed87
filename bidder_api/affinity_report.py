"""What `endcap affinity train` and `evaluate` print."""

from typing import TextIO

import msgspec

from affinity.rank import Trained
from affinity.train import Evaluation


def print_training(trained: Trained, out: TextIO) -> None:
    """Print a model's path and metrics, and whether it is in use now."""
    out.write(f"model: {trained.path}\n")
    for name, value in trained.metrics.items():
        out.write(f"{name}: {value:.6g}\n")
    if trained.is_active:
        out.write("This model is in use now; running servers take it up.\n")
        return
    before, now = ({"recall_at_20": 0.0, "mrr_at_20": 0.0, **one} for one in (trained.was_active, trained.metrics))
    out.write(
        "NOT in use: it did worse in validation than the model in use, which stays "
        f"(Recall@20 {now['recall_at_20']:.4f} against {before['recall_at_20']:.4f}, "
        f"MRR@20 {now['mrr_at_20']:.4f} against {before['mrr_at_20']:.4f}). "
        "To use it all the same: endcap affinity train --force\n"
    )


def print_evaluation(evaluation: Evaluation, kind: str, out: TextIO) -> None:
    """Print an evaluation as `table` or `json`."""
    if kind == "json":
        out.write(msgspec.json.format(msgspec.json.encode(evaluation)).decode() + "\n")
        return
    from rich.console import Console
    from rich.table import Table

    k = evaluation.top_count
    heads = {f"Recall@{k}": f"recall_at_{k}", f"MRR@{k}": f"mrr_at_{k}", f"NDCG@{k}": f"ndcg_at_{k}"}
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("ranking")
    for head in (*heads, f"coverage@{k}"):
        table.add_column(head, justify="right", no_wrap=True)
    for name, figures in evaluation.figures.items():
        shares = [f"{figures[key]:.1%}" for key in (*heads.values(), f"coverage_at_{k}")]
        table.add_row(name, *shares)
    model, *others = evaluation.figures.values()
    console = Console(file=out, width=None if out.isatty() else 120, highlight=False)
    console.print(
        f"{evaluation.trained_session_count:,} sessions learnt from, {evaluation.held_out_session_count:,} later ones "
        f"foreseen: {int(model['case_count']):,} moments, {int(model['between_sessions_case_count']):,} of them of "
        "visitors who begin anew.\n"
    )
    console.print(table)
    console.print(f"\n{_verdict(model, others, k)}")
    console.print(
        f"Higher is better. Recall: of what came next, the share among the {k} ranked first; MRR and NDCG: how far up; "
        f"coverage: share of all products that are among the {k} of anybody.\n"
        f"Calibration: {model['calibration_ratio']:.3f} came next for 1 predicted (best: 1), mean gap "
        f"{model['calibration_error']:.4f} (best: 0)."
    )


def _verdict(model: dict[str, float], others: list[dict[str, float]], k: int) -> str:
    best = {key: max(other[key] for other in others) for key in (f"recall_at_{k}", f"mrr_at_{k}")}
    ahead = [model[key] > value for key, value in best.items()]
    if all(ahead):
        return f"The model is better than each simpler ranking, by Recall@{k} and by MRR@{k}."
    if any(ahead):
        return f"The model is better than each simpler ranking by {'Recall' if ahead[0] else 'MRR'}@{k} alone."
    return "A simpler ranking does as well here: the model has too little to learn from."
