"""By how much each campaign's bids are lowered: so that a day's budget lasts the day, and a target ROAS is reached.

Two multipliers per campaign, both at most 1, moved every second or so and kept as logarithms. They are floats that end
as whole parts per million: what an auction decides with is a number, the same for every offer of the campaign.

*Pacing* raises the multiplier with the traffic that passes and lowers it with the money that goes::

    log m += gain · (traffic passed / traffic left − spent / money left)

so a campaign that keeps to its plan stands still, whatever is left of the day, and towards the end of it every step
counts more. With a fixed gain, m is a power of (money left / traffic left). The gain begins high, to find the level
within the first percents of a first day, and falls as 1/t, so that m becomes nearly the mean of what it was: prices
that rise and fall with the hours are best met with one multiplier for the whole day. Every other day begins with the
mean of the day before, each hour counted by what was spent in it, and with a low gain.

*Target ROAS* lowers the multiplier while the sales credited to the campaign, divided by the target, stay behind what it
spent, and raises it when they are ahead::

    log m += ROAS_GAIN · (sales / target − spent) / (spent in the last days + three hundred events' price)

Source: Balseiro and Gur, "Learning in Repeated Auctions with Budgets", 2019 (adaptive pacing, by dual steps); Feng,
Padmanabhan and Wang, "Online Bidding Algorithms for Return-on-Spend Constrained Advertisers", 2023 (the second dual).
"""

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

PPM = 1_000_000
FIRST_GAIN_DAYS = 0.02  # the gain begins at 1 over this
FIRST_DAY = 0.9  # of a day, after which the level is known and the gain is GAIN_MIN
GAIN_MIN = 0.5
LAST_PART = 0.1  # of a day, in which the gain rises again, to LAST_GAIN_MAX, so that nothing is left over
LAST_GAIN_MAX = 2.0
STEP_MAX = 0.5  # of one pacing step, in the logarithm
ROAS_GAIN = 6.0
ROAS_STEP_MAX = 0.1
ROAS_PRIOR_EVENTS = 300  # whose price is taken as spent before, since sales come late and one by one

Float64s = NDArray[np.float64]
Int64s = NDArray[np.int64]
Bools = NDArray[np.bool_]


class Remembered(Struct, frozen=True, array_like=True):
    """What is kept of a campaign between two starts."""

    log_pacing: float
    days_paced: float
    log_roas: float
    roas_spent_micros: float


class Pacing:
    """The multipliers of so many campaigns.

    Attributes:
        log_pacing, log_roas: (K,) the two multipliers.
        used_micros: (K,) spent today, or expected to be, as of the last step.
    """

    def __init__(self, count: int, floor_ppm: int) -> None:
        self._least = float(np.log(floor_ppm / PPM))
        self.log_pacing = np.zeros(count)
        self.log_roas = np.zeros(count)
        self.used_micros = np.zeros(count)
        self._days_paced = np.zeros(count)
        self._day_spent = np.zeros(count)  # today, while paced
        self._day_log_sum = np.zeros(count)  # of log_pacing, weighted with it
        self._roas_due = np.zeros(count)  # sales over target less spend that no step was made for yet
        self._roas_spent = np.zeros(count)  # halved every day

    def take_over(self, before: "Pacing", new_rows: Int64s, old_rows: Int64s) -> None:
        """Copy what is known of campaigns that another one had under other rows."""
        for name, column in vars(self).items():
            if isinstance(column, np.ndarray):
                column[new_rows] = getattr(before, name)[old_rows]

    def start_over(self, rows: Bools) -> None:
        """Look for the level of these campaigns again: their budget is another."""
        self._days_paced[rows] = 0.0

    def factor_ppm(self) -> Int64s:
        """Return (K,) both multipliers in one, within the least and 1,000,000."""
        both = np.clip(self.log_pacing + self.log_roas, self._least, 0.0)
        return np.asarray(np.rint(np.exp(both) * PPM), np.int64)

    def experienced_rows(self) -> Int64s:
        """Return the campaigns of which anything was learnt."""
        return np.flatnonzero((self._days_paced > 0) | (self._roas_spent > 0) | (self.log_roas < 0))

    def begin_day(self, used_micros: Float64s) -> None:
        """Begin at the mean of the day that ends."""
        mean = self._day_log_sum / np.maximum(self._day_spent, 1.0)
        self.log_pacing = np.where(self._day_spent >= 1.0, np.clip(mean, self._least, 0.0), self.log_pacing)
        self._day_log_sum[:] = 0.0
        self._day_spent[:] = 0.0
        self.used_micros[:] = used_micros

    def step(
        self,
        is_paced: Bools,
        used_micros: Float64s,
        plan_micros: Float64s,
        passed: Float64s,
        left: Float64s,
    ) -> None:
        """Move the pacing multipliers.

        Args:
            is_paced: (K,) those whose budget is spread and who may be served.
            used_micros: (K,) spent today, or expected to be.
            plan_micros: (K,) what today's spend shall come to.
            passed: (K,) share of a day's traffic since the last step.
            left: (K,) share that was still to come then, until the day or the flight ends.
        """
        spent = used_micros - self.used_micros
        money_left = np.maximum(plan_micros - self.used_micros, 1.0)
        gain = np.where(self._days_paced < FIRST_DAY, 1.0 / (self._days_paced + FIRST_GAIN_DAYS), GAIN_MIN)
        gain = np.maximum(gain, np.minimum(LAST_GAIN_MAX, LAST_PART / np.maximum(left, 1e-9)))
        by_traffic = np.minimum(passed / np.maximum(left, 1e-9), 1.0)
        step = np.clip(gain * (by_traffic - spent / money_left), -STEP_MAX, STEP_MAX)
        paid = np.where(is_paced, np.maximum(spent, 0.0), 0.0)
        self._day_log_sum += self.log_pacing * paid
        self._day_spent += paid
        self.log_pacing = np.where(is_paced, np.clip(self.log_pacing + step, self._least, 0.0), self.log_pacing)
        self._days_paced += np.where(is_paced, passed, 0.0)
        self.used_micros[:] = used_micros

    def add_value(self, row: int, sales_over_target_micros: float, spent_micros: float) -> None:
        """Count sales credited to a campaign, divided by its target, and what it was charged."""
        self._roas_due[row] += sales_over_target_micros - spent_micros
        self._roas_spent[row] += spent_micros

    def step_roas(self, has_target: Bools, price_micros: Float64s, passed: float) -> None:
        """Move the multipliers of campaigns with a target.

        Args:
            has_target: (K,) which those are.
            price_micros: (K,) about the highest price of one event.
            passed: share of a day's traffic since the last step.
        """
        self._roas_spent *= 0.5**passed
        size = (self._roas_spent + ROAS_PRIOR_EVENTS * np.maximum(price_micros, 1.0)) / ROAS_GAIN
        step = np.where(has_target, np.clip(self._roas_due / size, -ROAS_STEP_MAX, ROAS_STEP_MAX), 0.0)
        self._roas_due -= step * size
        self._roas_due[~has_target] = 0.0
        self.log_roas = np.where(has_target, np.clip(self.log_roas + step, self._least, 0.0), 0.0)

    def remember(self, row: int) -> Remembered:
        """Return what is to be kept of a campaign until the next start."""
        columns = (self.log_pacing, self._days_paced, self.log_roas, self._roas_spent)
        return Remembered(*[float(column[row]) for column in columns])

    def recall(self, row: int, kept: Remembered) -> None:
        """Go on where the campaign was."""
        self.log_pacing[row] = np.clip(kept.log_pacing, self._least, 0.0)
        self._days_paced[row] = max(0.0, kept.days_paced)
        self.log_roas[row] = np.clip(kept.log_roas, self._least, 0.0)
        self._roas_spent[row] = max(0.0, kept.roas_spent_micros)
