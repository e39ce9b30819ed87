"""The command leaves its files whole, or says what is wrong and leaves none."""

import json
from pathlib import Path

import pytest
from rich.console import Console

from sim.run import run_scenario

TINY_TOML = """
name = "tiny"
seed = 3
sentence = "A market small enough for a test."
[world]
product_count = 120
category_count = 4
brand_count = 8
visitor_count = 40
[traffic]
sessions_per_day = 30
[run]
bootstrap = 50
[[placements]]
placement_id = "top"
page_types = ["category"]
slot_count = 3
[[bidders]]
policy = "truthful"
count = 4
"""


def write_scenario(folder: Path, text: str) -> Path:
    path = folder / "mine.toml"
    path.write_text(text)
    return path


def test_a_run_leaves_measures_a_report_receipts_and_its_line(tmp_path: Path) -> None:
    path = write_scenario(tmp_path, TINY_TOML)
    with (tmp_path / "said").open("w") as said:
        console = Console(file=said, width=120)
        assert run_scenario(path, tmp_path / "out", console=console, keep_receipts=True) == 0
        assert run_scenario(path, tmp_path / "out", seed=9, console=console) == 0
    folder = tmp_path / "out" / "tiny-3"
    measures = json.loads((folder / "measures.json").read_text())
    assert measures["seed"] == 3
    assert "</html>" in (folder / "report.html").read_text()
    assert list((folder / "receipts").glob("*.receipts"))
    lines = [json.loads(line) for line in (tmp_path / "out" / "runs.jsonl").read_text().splitlines()]
    assert [line["seed"] for line in lines] == [3, 9]
    assert lines[0]["scenario_hash"] == lines[1]["scenario_hash"] == measures["scenario_hash"]
    assert lines[0]["measures"]["revenue"][0] == measures["measures"][0]["value"]
    assert "debits less credits 0" in (tmp_path / "said").read_text()


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        ("float('nan')", "adv-0005: Greedy.share_ppm must answer a whole number from 0 to 1000000, answered nan"),
        ("1_000_001", "adv-0005: Greedy.share_ppm must answer a whole number from 0 to 1000000, answered 1000001"),
        ("standing.secret", "adv-0005: Greedy.share_ppm failed: AttributeError"),
    ],
)
def test_a_policy_that_does_not_bid_ends_with_2_and_leaves_nothing(tmp_path: Path, answer: str, sentence: str) -> None:
    (tmp_path / "greedy.py").write_text(
        "class Greedy:\n    def __init__(self, group, stream):\n        self.asked = 0\n"
        "    def share_ppm(self, standing):\n        self.asked += 1\n"
        f"        return 500_000 if self.asked < 3 else {answer}\n"
    )
    text = TINY_TOML + '\n[[bidders]]\npolicy = "greedy.py:Greedy"\n'
    with (tmp_path / "said").open("w") as said:
        console = Console(file=said, width=200)
        assert run_scenario(write_scenario(tmp_path, text), tmp_path / "out", console=console, keep_receipts=True) == 2
        assert run_scenario(tmp_path / "none.toml", tmp_path / "out", console=console) == 2
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())
    assert sentence in (tmp_path / "said").read_text()


def test_a_policy_of_ones_own_bids_beside_the_others(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        '"""Bids more in the evening."""\n\n\nclass Evening:\n'
        "    def __init__(self, group, stream):\n        self.share = group.share_ppm\n\n"
        "    def share_ppm(self, standing):\n"
        "        return self.share if standing.day_gone_ppm > 700_000 else 0\n"
    )
    text = TINY_TOML + '\n[[bidders]]\npolicy = "mine.py:Evening"\nshare_ppm = 900_000\n'
    with (tmp_path / "said").open("w") as said:
        assert run_scenario(write_scenario(tmp_path, text), tmp_path / "out", console=Console(file=said)) == 0
    result = json.loads((tmp_path / "out" / "tiny-3" / "measures.json").read_text())
    evening = next(bidder for bidder in result["bidders"] if bidder["policy"] == "Evening")
    assert evening["advertiser_id"] == "adv-0005"
    shares = [period["share_ppm"]["Evening"] for period in result["periods"]]
    assert shares[0] == 0
    assert shares[-1] == 900_000


def test_a_target_roas_stands_beside_what_was_reached(tmp_path: Path) -> None:
    wanted = '\n[[bidders]]\npolicy = "target-roas"\ntarget_roas_ppm = 5_000_000\ncount = 2\n'
    with (tmp_path / "said").open("w") as said:
        path = write_scenario(tmp_path, TINY_TOML + wanted)
        assert run_scenario(path, tmp_path / "out", console=Console(file=said, width=150)) == 0
    result = json.loads((tmp_path / "out" / "tiny-3" / "measures.json").read_text())
    both = [bidder for bidder in result["bidders"] if bidder["target_roas_ppm"] == 5_000_000]
    reached = sum(bidder["sales_micros"] for bidder in both) / sum(bidder["spend_micros"] for bidder in both)
    said_text = (tmp_path / "said").read_text()
    assert f"target ROAS 5.00, 2 bidders, target-roas: reached {reached:.2f}" in said_text
    report = (tmp_path / "out" / "tiny-3" / "report.html").read_text()
    assert "Its target" in report
    assert "<td class='n'>5.00</td>" in report or ">5.00<" in report
