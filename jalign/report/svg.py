"""Charts as inline SVG. Colors are classes, which the page's style fills for light and dark."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field

from markupsafe import Markup

from jalign.report.scale import Axis, axis, compact, smoothed, steps_axis, thinned, wants_log

WIDTH, HEIGHT = 420, 220
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 12, 10, 26
COLORS = 6
"""Colors of the palette; lines beyond repeat them."""


@dataclass(frozen=True, kw_only=True)
class Line:
    """A line of a chart.

    Attributes:
      color: of the palette, 0 to `COLORS` - 1.
      held_out: dashed, with a dot at every evaluation.
      low, high: the range around the line (of seeds), of the same steps.
    """

    label: str
    steps: Sequence[int]
    values: Sequence[float]
    color: int = 0
    held_out: bool = False
    low: Sequence[float] = ()
    high: Sequence[float] = ()


@dataclass(frozen=True, kw_only=True)
class Chart:
    """Lines over steps.

    Attributes:
      title, unit: above the chart.
      note: what it shows, in a sentence; a tooltip of the title.
      restarts: steps after which later sessions went on, marked by vertical lines.
      evaluations: steps of evaluations, marked on the axis.
      log: whether values over three orders of magnitude have a logarithmic axis.
    """

    title: str
    lines: list[Line]
    unit: str = ""
    note: str = ""
    restarts: list[int] = field(default_factory=list)
    evaluations: list[int] = field(default_factory=list)
    log: bool = False

    def legend(self, brief: bool = False) -> list[Line]:
        """The lines to name. A single line needs no name; `brief` leaves out those held out whose
        color has a line of training.
        """
        if len(self.lines) == 1:
            return []
        training = {line.color for line in self.lines if not line.held_out}
        hidden = [brief and line.held_out and line.color in training for line in self.lines]
        return [line for line, hide in zip(self.lines, hidden, strict=True) if not hide]


def line_chart(chart: Chart) -> Markup:
    """The chart with its lines, axes and marks; values for hovering are in `data-chart`."""
    values = [v for line in chart.lines for v in (*line.values, *line.low, *line.high)]
    y = axis(values, log=chart.log and wants_log(values))
    x = steps_axis(max(line.steps[-1] for line in chart.lines))
    parts = [*_y_grid(y), *_x_ticks(x)]
    parts += [_mark(x, step) for step in chart.restarts]
    parts += [
        Markup('<path class="eval" d="M{:.1f} {}v4"/>').format(_px(x, step), HEIGHT - _BOTTOM)
        for step in chart.evaluations
        if step <= x.high
    ]
    for line in chart.lines:
        parts += _line(line, x, y)
    # five digits: what a tooltip shows
    data = {
        "x": [x.low, x.high],
        "lines": [
            {"l": line.label, "c": line.color, "s": s, "v": [float(f"{v:.5g}") for v in values]}
            for line in chart.lines
            for s, values in [thinned(line.steps, line.values)]
        ],
    }
    label = f"{chart.title} by step"
    return _svg(label, parts, Markup(' data-chart="{}"').format(json.dumps(data)))


def histogram(groups: Sequence[tuple[str, Sequence[float]]], bins: int = 24) -> Markup:
    """Shares of values, one outline per group, over bins of equal width.

    Args:
      groups: (label, values); the first is color 0.
    """
    everything = [v for _, values in groups for v in values]
    x = axis(everything, ticks=5)
    shares = []
    # shares, not counts: groups differ in size
    for _, values in groups:
        counts = [0] * bins
        for v in values:
            counts[min(int(x.at(v) * bins), bins - 1)] += 1
        shares.append([count / len(values) for count in counts])
    y = axis([0.0, max(max(s) for s in shares)])
    parts = [*_y_grid(y), *_x_ticks(x)]
    # drawn over each other: areas are translucent, outlines are not
    for color, share in enumerate(shares):
        path, bottom = "", _py(y, 0.0)
        for i, height in enumerate(share):
            left, right = (_scaled(k / bins) for k in (i, i + 1))
            path += f"{'L' if i else f'M{left:.1f} {bottom:.1f}L'}{left:.1f} {_py(y, height):.1f}"
            path += f"H{right:.1f}"
        area = Markup('<path class="area c{0}" d="{1}V{2:.1f}Z"/>')
        parts.append(area.format(color % COLORS, path, bottom))
        parts.append(Markup('<path class="line c{}" d="{}"/>').format(color % COLORS, path))
    return _svg("distribution of rewards", parts)


def scatter(groups: Sequence[tuple[str, Sequence[tuple[float, float]]]], label: str) -> Markup:
    """Points (x, y), a color per group."""
    points = [point for _, group in groups for point in group]
    x, y = axis([p[0] for p in points], ticks=5), axis([p[1] for p in points])
    parts = [*_y_grid(y), *_x_ticks(x)]
    for color, (_, group) in enumerate(groups):
        for a, b in group:
            dot = Markup('<circle class="point c{}" cx="{:.1f}" cy="{:.1f}" r="2.4"/>')
            parts.append(dot.format(color % COLORS, _px(x, a), _py(y, b)))
    return _svg(label, parts)


def _svg(label: str, parts: Sequence[Markup], attributes: Markup = Markup("")) -> Markup:
    head = Markup('<svg viewBox="0 0 {} {}" role="img" aria-label="{}"{}>')
    return head.format(WIDTH, HEIGHT, label, attributes) + Markup("").join(parts) + Markup("</svg>")


def _scaled(share: float) -> float:
    return _LEFT + share * (WIDTH - _LEFT - _RIGHT)


def _px(x: Axis, value: float) -> float:
    return _scaled(x.at(value))


def _py(y: Axis, value: float) -> float:
    return HEIGHT - _BOTTOM - y.at(value) * (HEIGHT - _TOP - _BOTTOM)


def _y_grid(y: Axis) -> list[Markup]:
    parts = []
    for tick in y.ticks:
        height = _py(y, tick)
        line = Markup('<path class="grid" d="M{} {:.1f}H{}"/>')
        parts.append(line.format(_LEFT, height, WIDTH - _RIGHT))
        text = Markup('<text class="y" x="{}" y="{:.1f}">{}</text>')
        parts.append(text.format(_LEFT - 6, height + 3.5, compact(tick)))
    return parts


def _x_ticks(x: Axis) -> list[Markup]:
    text = Markup('<text class="x" x="{:.1f}" y="{}">{}</text>')
    return [text.format(_px(x, tick), HEIGHT - 8, compact(tick)) for tick in x.ticks]


def _mark(x: Axis, step: int) -> Markup:
    title = Markup("<title>resumed after step {}</title>").format(step)
    mark = Markup('<path class="restart" d="M{:.1f} {}V{}">{}</path>')
    return mark.format(_px(x, min(step, x.high)), _TOP, HEIGHT - _BOTTOM, title)


def _line(line: Line, x: Axis, y: Axis) -> list[Markup]:
    parts = []
    if line.low:
        there = [(_px(x, s), _py(y, v)) for s, v in zip(line.steps, line.high, strict=True)]
        back = [(_px(x, s), _py(y, v)) for s, v in zip(line.steps, line.low, strict=True)]
        outline = _path(there + back[::-1]) + "Z"
        parts.append(Markup('<path class="band c{}" d="{}"/>').format(line.color, outline))
    # a page of megabytes opens slowly, and a screen has no more pixels
    steps, values = thinned(line.steps, line.values)
    points = [(_px(x, s), _py(y, v)) for s, v in zip(steps, values, strict=True)]
    kind = "line held" if line.held_out else "line"
    many = len(line.values) > 60 and not line.held_out and not line.low
    if many:
        # noise as a faint line, the trend above it
        parts.append(Markup('<path class="noise c{}" d="{}"/>').format(line.color, _path(points)))
        trend = smoothed(line.values, len(line.values) / 40)
        steps, values = thinned(line.steps, trend)
        points = [(_px(x, s), _py(y, v)) for s, v in zip(steps, values, strict=True)]
    if len(points) > 1:
        parts.append(
            Markup('<path class="{} c{}" d="{}"/>').format(kind, line.color, _path(points))
        )
    if line.held_out or len(points) == 1:
        dot = Markup('<circle class="dot c{}" cx="{:.1f}" cy="{:.1f}" r="2.6"/>')
        parts += [dot.format(line.color, px, py) for px, py in points[:120]]
    return parts


def _path(points: Sequence[tuple[float, float]]) -> str:
    return "M" + "L".join(f"{px:.1f} {py:.1f}" for px, py in points)
