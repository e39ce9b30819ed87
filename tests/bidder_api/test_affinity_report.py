"""What training and evaluating print says whether a model is in use, and what is better."""

from io import StringIO
from pathlib import Path

import msgspec

from affinity.rank import Trained
from affinity.train import Evaluation
from bidder_api.affinity_report import print_evaluation, print_training


def figures(recall: float, mrr: float) -> dict[str, float]:
    return {
        "case_count": 1_200.0,
        "between_sessions_case_count": 300.0,
        "recall_at_5": recall,
        "mrr_at_5": mrr,
        "ndcg_at_5": 0.3,
        "coverage_at_5": 0.5,
        "calibration_error": 0.001,
        "calibration_ratio": 1.02,
    }


def printed(evaluation: Evaluation, kind: str = "table") -> str:
    out = StringIO()
    print_evaluation(evaluation, kind, out)
    return out.getvalue()


def test_a_model_kept_out_of_use_is_said_to_be_with_both_figures_and_the_way_out() -> None:
    out = StringIO()
    now, before = ({"recall_at_20": one, "mrr_at_20": 0.1} for one in (0.25, 0.5))
    print_training(Trained(Path("m.npz"), now, before, is_active=False), out)
    assert "NOT in use" in out.getvalue()
    assert "0.2500 against 0.5000" in out.getvalue()
    assert "--force" in out.getvalue()
    out = StringIO()
    print_training(Trained(Path("m.npz"), now, before, is_active=True), out)
    assert "NOT" not in out.getvalue()


def test_an_evaluation_says_which_ranking_is_better() -> None:
    evaluation = Evaluation(5, 900, 100, {"this model": figures(0.6, 0.4), "best-sellers": figures(0.2, 0.1)})
    text = printed(evaluation)
    assert "Recall@5" in text
    assert "60.0%" in text
    assert "better than each simpler ranking, by Recall@5 and by MRR@5" in text
    mixed = Evaluation(5, 900, 100, {"this model": figures(0.6, 0.1), "best-sellers": figures(0.2, 0.4)})
    assert "by Recall@5 alone" in printed(mixed)
    worse = Evaluation(5, 900, 100, {"this model": figures(0.1, 0.1), "best-sellers": figures(0.2, 0.4)})
    assert "A simpler ranking does as well" in printed(worse)
    assert msgspec.json.decode(printed(evaluation, "json"), type=Evaluation) == evaluation
