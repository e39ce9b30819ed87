"""What the simulation refuses, always with a sentence that says what and where; the command then exits with 2.

SimRefused
├── ScenarioRefused   the scenario file: unknown key, impossible number, a reference to nothing
├── PolicyRefused     a bidding policy answered something that is not a bid
└── ReplayRefused     the receipts: none there, another version, torn; or a change replay cannot make
"""


class SimRefused(ValueError):  # a refusal is an answer, not an error of ours
    """A refusal; its message is meant for the analyst as it stands."""

    exit_code = 2


class ScenarioRefused(SimRefused):
    """The scenario cannot be run as written."""


class PolicyRefused(SimRefused):
    """A policy asked for something it may not have."""


class ReplayRefused(SimRefused):
    """The receipts cannot be run again, or not in the way asked for."""
