"""Charts as SVG text, drawn here so that a report is one file that opens without a network.

Colours are CSS variables of the page, so that a chart follows its light and dark scheme.
"""

from collections.abc import Sequence
from html import escape

from msgspec import Struct

WIDTH = 520  # as wide as half a report's page, so that letters come out at their own size
HEIGHT = 230
LEVEL_WIDTH = 1040  # a whole page
LABEL_COUNT_MAX = 8
_LEFT, _RIGHT, _TOP, _BOTTOM = 50, 10, 12, 28


class Line(Struct, frozen=True):
    """One series over the shared steps of the horizontal axis; None leaves a gap."""

    name: str
    values: list[float | None]
    colour: int


class Point(Struct, frozen=True):
    """One dot, with what to say when pointed at."""

    x: float
    y: float
    colour: int
    title: str


def bars(
    labels: Sequence[str], values: Sequence[float], titles: Sequence[str], *, describe: str, unit: str = ""
) -> str:
    """Draw one bar per step."""
    top, ticks = _axis_up(max(values, default=0.0))
    step = _inner_width() / max(1, len(values))
    width = max(1.0, step * 0.78)
    drawn = [_frame(ticks, top, unit), _steps(labels)]
    for row, value in enumerate(values):
        height = value / top * _inner_height()
        x = _LEFT + step * row + (step - width) / 2
        drawn.append(
            f'<rect class="c0" x="{x:.1f}" y="{_TOP + _inner_height() - height:.1f}" width="{width:.1f}" '
            f'height="{height:.1f}" rx="{min(2.0, width / 3):.1f}"><title>{escape(titles[row])}</title></rect>'
        )
    return _svg(drawn, describe)


def lines(
    labels: Sequence[str], series: Sequence[Line], *, describe: str, unit: str = "", top: float | None = None
) -> str:
    """Draw one line per series."""
    highest = max((value for line in series for value in line.values if value is not None), default=0.0)
    top, ticks = _axis_up(highest) if top is None else (top, [top * part / 4 for part in range(5)])
    step = _inner_width() / max(1, len(labels))
    drawn = [_frame(ticks, top, unit), _steps(labels)]
    for line in series:
        for run in _runs(line.values):
            points = " ".join(
                f"{_LEFT + step * (row + 0.5):.1f},{_TOP + _inner_height() * (1 - value / top):.1f}"
                for row, value in run
            )
            shape = "polyline" if len(run) > 1 else "polyline stroke-linecap='round'"
            drawn.append(
                f'<{shape} class="l{line.colour}" points="{points}"><title>{escape(line.name)}</title></polyline>'
            )
    return _svg(drawn, describe)


def scatter(points: Sequence[Point], *, describe: str, x_label: str, y_label: str) -> str:
    """Draw dots on two axes of one scale, and the line on which both are equal."""
    top, ticks = _axis_up(max((max(point.x, point.y) for point in points), default=0.0))
    inner_width, inner_height = _inner_width(), _inner_height() - 14

    def at(x: float, y: float) -> tuple[float, float]:
        return _LEFT + x / top * inner_width, _TOP + inner_height * (1 - y / top)

    drawn = []
    for tick in ticks:
        x, y = at(tick, tick)
        drawn.append(
            f'<line class="grid" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
            f'<text class="tick" x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{_short(tick)}</text>'
            f'<text class="tick" x="{x:.1f}" y="{_TOP + inner_height + 16}" text-anchor="middle">{_short(tick)}</text>'
        )
    (x1, y1), (x2, y2) = at(0, 0), at(top, top)
    drawn.append(f'<line class="even" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>')
    for point in points:
        x, y = at(point.x, point.y)
        drawn.append(
            f'<circle class="c{point.colour}" cx="{x:.1f}" cy="{y:.1f}" r="4.5">'
            f"<title>{escape(point.title)}</title></circle>"
        )
    drawn.append(
        f'<text class="tick" x="{WIDTH - _RIGHT}" y="{HEIGHT - 4}" text-anchor="end">{escape(x_label)} →</text>'
        f'<text class="tick" x="{_LEFT + 6}" y="{_TOP + 10}">↑ {escape(y_label)}</text>'
    )
    return _svg(drawn, describe)


def level(
    names: Sequence[str], shares: Sequence[float], colours: Sequence[int], titles: Sequence[str], *, describe: str
) -> str:
    """Draw one horizontal bar per name, on a track that is full at 1."""
    row_height = 22
    drawn = []
    for row, share in enumerate(shares):
        y = row * row_height + 4
        full = LEVEL_WIDTH - 220
        drawn.append(
            f'<text class="name" x="150" y="{y + 11}" text-anchor="end">{escape(names[row])}</text>'
            f'<rect class="track" x="160" y="{y}" width="{full}" height="14" rx="3"/>'
            f'<rect class="c{colours[row]}" x="160" y="{y}" width="{full * min(1.0, share):.1f}" height="14" rx="3">'
            f"<title>{escape(titles[row])}</title></rect>"
            f'<text class="tick" x="{160 + full + 8}" y="{y + 11}">{share:.0%}</text>'
        )
    return _svg(drawn, describe, width=LEVEL_WIDTH, height=len(shares) * row_height + 4)


def whisker(value: float, low: float, high: float, reach: float) -> str:
    """Draw a value in its interval, on a line that goes from `value - reach` to `value + reach`."""

    def at(found: float) -> float:
        return 80 + 76 * max(-1.0, min(1.0, (found - value) / reach))

    return (
        '<svg class="whisker" viewBox="0 0 160 16" aria-hidden="true">'
        '<line class="grid" x1="4" x2="156" y1="8" y2="8"/>'
        f'<line class="span" x1="{at(low):.1f}" x2="{at(high):.1f}" y1="8" y2="8"/>'
        '<circle class="c0" cx="80" cy="8" r="4"/></svg>'
    )


def legend(names: Sequence[str]) -> str:
    """Name the colours, from 0."""
    return (
        '<p class="legend">'
        + "".join(f'<span><i class="b{row}"></i>{escape(name)}</span>' for row, name in enumerate(names))
        + "</p>"
    )


def _svg(drawn: Sequence[str], describe: str, width: int = WIDTH, height: int = HEIGHT) -> str:
    return f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{escape(describe)}">{"".join(drawn)}</svg>'


def _inner_width() -> float:
    return WIDTH - _LEFT - _RIGHT


def _inner_height() -> float:
    return HEIGHT - _TOP - _BOTTOM


def _axis_up(highest: float) -> tuple[float, list[float]]:
    """Return a round top at or above `highest`, and four to six round ticks up to it."""
    if highest <= 0:
        return 1.0, [0.0, 0.5, 1.0]
    unit = 1.0
    while unit * 10 <= highest:
        unit *= 10
    while unit > highest:
        unit /= 10
    for part in (0.2, 0.25, 0.5, 1.0, 2.0, 2.5):
        count = int(-(-highest // (unit * part)))
        if count <= 5:
            return unit * part * count, [unit * part * row for row in range(count + 1)]
    return unit * 10, [unit * 2 * row for row in range(6)]


def _frame(ticks: Sequence[float], top: float, unit: str) -> str:
    drawn = []
    for tick in ticks:
        y = _TOP + _inner_height() * (1 - tick / top)
        label = f"{tick:.0%}" if unit == "%" else _short(tick)
        drawn.append(
            f'<line class="grid" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
            f'<text class="tick" x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{label}</text>'
        )
    return "".join(drawn)


def _steps(labels: Sequence[str]) -> str:
    """Name a few of the steps of the horizontal axis that have a name."""
    step = _inner_width() / max(1, len(labels))
    named = [row for row, label in enumerate(labels) if label]
    every = max(1, -(-len(named) // LABEL_COUNT_MAX))
    return "".join(
        f'<text class="tick" x="{_LEFT + step * (row + 0.5):.1f}" y="{HEIGHT - 10}" '
        f'text-anchor="middle">{escape(labels[row])}</text>'
        for row in named[::every]
    )


def _runs(values: Sequence[float | None]) -> list[list[tuple[int, float]]]:
    """Split a series at its gaps."""
    runs: list[list[tuple[int, float]]] = [[]]
    for row, value in enumerate(values):
        if value is None:
            runs.append([])
        else:
            runs[-1].append((row, value))
    return [run for run in runs if run]


def _short(value: float) -> str:
    """Write an axis number briefly: 1.2k, 40, 0.05."""
    if value >= 1000:
        return f"{value / 1000:.4g}k"
    return f"{value:.4g}"
