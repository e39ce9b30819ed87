"""`endcap sim` ends with the code the analyst's scripts look at."""

from pathlib import Path

from click.testing import CliRunner

from bidder_api.cli import endcap
from tests.sim.test_run import TINY_TOML


def test_run_then_replay(tmp_path: Path) -> None:
    scenario = tmp_path / "mine.toml"
    scenario.write_text(TINY_TOML)
    out = tmp_path / "out"
    ran = CliRunner().invoke(endcap, ["sim", "run", str(scenario), "--out", str(out), "--receipts"])
    assert ran.exit_code == 0, ran.output
    again = CliRunner().invoke(
        endcap,
        ["sim", "replay", str(out / "tiny-3" / "receipts"), "--floor", "top=150000", "--out", str(out / "replay")],
    )
    assert again.exit_code == 0, again.output
    assert "came back bit for bit" in again.output
    assert (out / "replay" / "replay.html").is_file()


def test_what_is_refused_ends_with_2(tmp_path: Path) -> None:
    for asked in (
        ["run", "no-such-scenario"],
        ["run", "grocer", "--seed", "-1"],
        ["replay", str(tmp_path)],
        ["replay", str(tmp_path), "--floor", "free"],
        ["replay", str(tmp_path), "--pricing", "gsp"],
        ["replay", str(tmp_path / "nowhere")],
    ):
        answered = CliRunner().invoke(endcap, ["sim", *asked, "--out", str(tmp_path / "out")])
        assert answered.exit_code == 2, answered.output
    assert not (tmp_path / "out").exists()
