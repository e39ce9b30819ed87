"""The command leaves its files whole, or says what is wrong and leaves none."""

import json
from pathlib import Path

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


def test_a_refused_scenario_ends_with_2_and_leaves_nothing(tmp_path: Path) -> None:
    greedy = tmp_path / "greedy.py"
    greedy.write_text(
        "class Greedy:\n    def __init__(self, group, stream):\n        pass\n"
        "    def share_ppm(self, standing):\n        return float('nan')\n"
    )
    text = TINY_TOML + '\n[[bidders]]\npolicy = "greedy.py:Greedy"\n'
    with (tmp_path / "said").open("w") as said:
        console = Console(file=said, width=200)
        assert run_scenario(write_scenario(tmp_path, text), tmp_path / "out", console=console, keep_receipts=True) == 2
        assert run_scenario(tmp_path / "none.toml", tmp_path / "out", console=console) == 2
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())
    assert "Greedy.share_ppm must answer a whole number" in (tmp_path / "said").read_text()
