"""What the examples share: the digits, a table, and a picture of curves. Needs NumPy alone."""

from __future__ import annotations

import dataclasses
import gzip
import html
import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]

_DIGITS = pathlib.Path(__file__).resolve().parents[2] / "trainer/data/digits.csv.gz"
_BRIGHTEST = 16
_TRAIN = 1408


class Digits(NamedTuple):
    """1,797 handwritten digits of 8×8 pixels, 1,408 to train and 389 to test."""

    train_images: Array  # [1408, 64] float32, 0 to 1
    train_labels: Array  # [1408] int32, 0 to 9
    test_images: Array  # [389, 64]
    test_labels: Array  # [389]


def load_digits(seed: int = 0) -> Digits:
    """Return the digits, shuffled by `seed` before they are split."""
    with gzip.open(_DIGITS, "rt") as lines:
        table = np.loadtxt(lines, delimiter=",", dtype=np.int32)
    table = table[np.random.default_rng(seed).permutation(len(table))]
    images, labels = (table[:, :-1] / _BRIGHTEST).astype(np.float32), table[:, -1]
    return Digits(images[:_TRAIN], labels[:_TRAIN], images[_TRAIN:], labels[_TRAIN:])


def print_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print rows under their headings: the first column to the left, the others to the right."""
    widths = [max(len(row[column]) for row in (headings, *rows)) for column in range(len(headings))]
    for row in (headings, *rows):
        cells = [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        print("  ".join([row[0].ljust(widths[0]), *cells]).rstrip())


# ---- A method that trains


@dataclasses.dataclass
class Run:
    """What a method did: by epoch, the first before any step."""

    method: str
    losses: list[float] = dataclasses.field(default_factory=list)
    accuracies: list[float] = dataclasses.field(default_factory=list)
    seconds_per_step: float = 0.0


def print_runs(runs: Sequence[Run]) -> None:
    """Print losses and accuracies at some of the epochs, and the time of a step."""
    last = len(runs[0].losses) - 1
    shown = sorted({epoch for epoch in (0, 1, 2, 5, 10, 20) if epoch < last} | {last})
    table = [
        [str(epoch), *(f"{run.losses[epoch]:.2g} {100 * run.accuracies[epoch]:5.1f} %" for run in runs)]
        for epoch in shown
    ]
    table.append(["per step", *(f"{1e3 * run.seconds_per_step:.2f} ms" for run in runs)])
    print("Training loss (nats) and test accuracy, by epoch; the median time of a step\n")
    print_table(["epoch", *(run.method for run in runs)], table)


def write_runs_svg(path: str, runs: Sequence[Run]) -> None:
    """Draw the curves, and say where they are."""
    losses = {run.method: list(enumerate(run.losses)) for run in runs}
    accuracies = {run.method: list(enumerate(run.accuracies)) for run in runs}
    panels = [
        Panel("training loss (nats, log)", "epoch", losses, "log"),
        Panel("test accuracy (%, log of the rest)", "epoch", accuracies, "accuracy"),
    ]
    write_curves_svg(path, panels)
    print(f"\nThe curves are in {path}")


# ---- The picture

Curve = Sequence[tuple[float, float]]  # points (x, y), from left to right

# Okabe and Ito's colours, told apart by every eye and on both grounds.
_COLOURS = ("#8c8c8c", "#56b4e9", "#e69f00", "#009e73", "#cc79a7", "#d55e00")
_PANEL_WIDTH, _PANEL_HEIGHT, _LEFT, _TOP, _GAP, _BOTTOM = 400, 300, 64, 48, 72, 92
_PER_ENTRY = 170  # of the legend
_STYLE = """<style>
  text { font: 13px system-ui, sans-serif; fill: #24292f }
  .title { font-size: 15px; font-weight: 600 }
  .ground { fill: #ffffff } .grid { stroke: #d0d7de; stroke-width: 1 }
  .curve { fill: none; stroke-width: 2; stroke-linejoin: round }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3 } .ground { fill: #0d1117 } .grid { stroke: #30363d }
  }
</style>"""


@dataclasses.dataclass(frozen=True)
class Panel:
    """Curves over one pair of axes.

    scale: of the upward axis. "accuracy": of shares from 0 to 1, shown in per cent, logarithmic in what is missing.
    """

    title: str
    x_label: str
    curves: Mapping[str, Curve]
    scale: Literal["linear", "log", "accuracy"] = "linear"


@dataclasses.dataclass(frozen=True)
class _Axis:
    low: float
    high: float
    ticks: Sequence[tuple[float, str]]
    log: bool = False

    def place(self, value: float) -> float:
        """Return where a value is: 0 at the low end, 1 at the high one."""
        change = math.log if self.log else float
        low, high = change(self.low), change(self.high)
        inside = min(max(value, min(self.low, self.high)), max(self.low, self.high))
        return (change(inside) - low) / (high - low)


def write_curves_svg(path: str | pathlib.Path, panels: Sequence[Panel]) -> None:
    """Write a picture, readable on light and on dark ground: the panels side by side, one colour per curve's name.

    At most six names. Folders are made as needed.
    """
    names = list(dict.fromkeys(name for panel in panels for name in panel.curves))
    if len(names) > len(_COLOURS):
        message = f"{len(names)} curves, at most {len(_COLOURS)}"
        raise ValueError(message)
    colours = dict(zip(names, _COLOURS, strict=False))
    across = _LEFT + len(panels) * (_PANEL_WIDTH + _GAP) - _GAP + 24
    width, height = max(across, _LEFT + len(names) * _PER_ENTRY), _TOP + _PANEL_HEIGHT + _BOTTOM
    title = html.escape("; ".join(panel.title for panel in panels))
    size = f'width="{width}" height="{height}"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" {size} role="img">',
        f'<title>{title}</title>\n{_STYLE}\n<rect class="ground" {size}/>',
    ]
    for index, panel in enumerate(panels):
        parts += _panel(panel, _LEFT + index * (_PANEL_WIDTH + _GAP), colours)
    for index, name in enumerate(names):
        x, y = _LEFT + index * _PER_ENTRY, height - 24
        parts.append(f'<path class="curve" stroke="{colours[name]}" d="M{x} {y}h24"/>')
        parts.append(_text(x + 32, y + 4, name))
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([*parts, "</svg>\n"]), encoding="utf-8")


def _panel(panel: Panel, left: float, colours: Mapping[str, str]) -> list[str]:
    points = [(x, y) for curve in panel.curves.values() for x, y in curve if math.isfinite(y)]
    if not points:
        message = f"nothing to draw in the panel {panel.title!r}"
        raise ValueError(message)
    xs, ys = _linear_axis([x for x, _ in points]), _upward_axis(panel.scale, [y for _, y in points])
    bottom = _TOP + _PANEL_HEIGHT
    parts = [_text(left, _TOP - 16, panel.title, ' class="title"')]
    for value, label in ys.ticks:
        y = bottom - _PANEL_HEIGHT * ys.place(value)
        parts.append(f'<path class="grid" d="M{left} {y:.1f}h{_PANEL_WIDTH}"/>')
        parts.append(_text(left - 8, y + 4, label, ' text-anchor="end"'))
    for value, label in xs.ticks:
        parts.append(_text(left + _PANEL_WIDTH * xs.place(value), bottom + 20, label, ' text-anchor="middle"'))
    parts.append(_text(left + _PANEL_WIDTH / 2, bottom + 40, panel.x_label, ' text-anchor="middle"'))
    for name, curve in panel.curves.items():
        line = " ".join(
            f"{'L' if index else 'M'}{left + _PANEL_WIDTH * xs.place(x):.1f} "
            f"{bottom - _PANEL_HEIGHT * ys.place(1 - y if panel.scale == 'accuracy' else y):.1f}"
            for index, (x, y) in enumerate(point for point in curve if math.isfinite(point[1]))
        )
        parts.append(f'<path class="curve" stroke="{colours[name]}" d="{line}"/>')
    return parts


def _upward_axis(scale: str, values: Sequence[float]) -> _Axis:
    if scale == "accuracy":
        best = max(min(1 - max(values), 0.01), 0.001)
        percents = (0, 50, 80, 90, 95, 98, 99, 99.5, 99.9)
        ticks = [((100 - percent) / 100, f"{percent:g}") for percent in percents if 100 - percent >= 100 * best - 1e-9]
        return _Axis(1, best, ticks, log=True)
    if scale == "log":
        positive = [value for value in values if value > 0] or [1.0]
        low, high = math.floor(math.log10(min(positive))), max(positive)
        decades = range(low, math.floor(math.log10(high)) + 1)
        return _Axis(
            10.0**low, max(high, 1.1 * 10.0**low), [(10.0**decade, f"{10.0**decade:g}") for decade in decades], log=True
        )
    return _linear_axis(values)


def _linear_axis(values: Sequence[float]) -> _Axis:
    low, high = min(values), max(values)
    high = high if high > low else low + 1
    step = 10 ** math.floor(math.log10((high - low) / 2))
    step *= next(factor for factor in (1, 2, 5, 10) if (high - low) / (step * factor) <= 6)  # noqa: PLR2004
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return _Axis(low, high, [(tick * step, f"{tick * step:g}") for tick in range(first, last + 1)])


def _text(x: float, y: float, text: str, attributes: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}"{attributes}>{html.escape(text)}</text>'
