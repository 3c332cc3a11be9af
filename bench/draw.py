#!/usr/bin/env python3
"""Draws benchmark figures as SVG, legible on a light and on a dark page.

    draw.py ratios CAPTION < ROWS > chart.svg     bars, from what table.awk -v rows_only=1 prints
    bench/scale                                   lines, by lines() below

Python's standard library only; the same input gives the same bytes.
"""
import math
import sys
from xml.sax.saxutils import escape

# The page behind stays: only ink is chosen here, by what the reader's system prefers.
LIGHT = ["#0b7a5e", "#b4540a", "#3566b8", "#8a3f9e", "#a11d33", "#6b6b00", "#00708a"]
DARK = ["#3fcf9f", "#f0a04b", "#86aef5", "#d391e3", "#f07a8b", "#c9c94a", "#56c7e0"]


def style():
    light = "".join(f".s{i}{{stroke:{c}}}.f{i}{{fill:{c}}}" for i, c in enumerate(LIGHT))
    dark = "".join(f".s{i}{{stroke:{c}}}.f{i}{{fill:{c}}}" for i, c in enumerate(DARK))
    return (
        "<style>text{fill:#24292f;font:11px sans-serif}.t{font-size:14px;font-weight:bold}.q{fill:#59636e}"
        ".g{stroke:#d0d7de;stroke-width:1}.l{fill:none;stroke-width:2}.w{stroke:#24292f;stroke-width:1}"
        ".m{stroke:#59636e;stroke-width:1.5;stroke-dasharray:4 3}" + light +
        "@media(prefers-color-scheme:dark){text{fill:#e6edf3}.q{fill:#9198a1}.g{stroke:#3d444d}"
        ".w{stroke:#e6edf3}.m{stroke:#9198a1}" + dark + "}</style>"
    )


def document(width, height, parts):
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}">'
    return "\n".join([head, style(), *parts, "</svg>\n"])


def text(x, y, what, css="", anchor="start"):
    css = f' class="{css}"' if css else ""
    anchor = "" if anchor == "start" else f' text-anchor="{anchor}"'
    return f'<text x="{x:.0f}" y="{y:.0f}"{css}{anchor}>{escape(what)}</text>'


def segment(x1, y1, x2, y2, css):
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" class="{css}"/>'


def number(x):
    if x >= 1e6 and x % 1e5 == 0:
        return f"{x / 1e6:g} M"
    return f"{x:,.0f}" if x >= 1000 else f"{x:.3g}"


def ticks(high):
    """Round numbers from 0 to at least high, about five."""
    step = 10.0 ** math.floor(math.log10(high / 4))
    step *= next(k for k in (1, 2, 5, 10) if high / (k * step) <= 6)
    return [i * step for i in range(math.ceil(high / step - 1e-9) + 1)]


def decades(low, high):
    return [10.0 ** i for i in range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)]


def lines(title, axis_x, axis_y, series, caption, log_y=False, limit=None):
    """A line for each of series, a list of (name, [(x, y) …]); x is logarithmic.

    limit: (height, name) of a dashed line that the others should stay below.
    """
    width, height, left, right, top, bottom = 760, 380, 64, 190, 52, 62
    xs = sorted({x for _, points in series for x, _ in points})
    ys = [y for _, points in series for _, y in points if y > 0] + ([limit[0]] if limit else [])
    marks_y = decades(min(ys), max(ys)) if log_y else ticks(max(ys))
    marks_x = xs if len(xs) <= 8 else decades(xs[0], xs[-1])
    low_x, high_x = math.log(xs[0]), math.log(max(xs[-1], xs[0] * 2))

    def px(x):
        return left + (width - left - right) * (math.log(x) - low_x) / (high_x - low_x)

    def py(y):
        if log_y:
            low, high = math.log(marks_y[0]), math.log(max(marks_y[-1], marks_y[0] * 10))
            part = (math.log(max(y, marks_y[0])) - low) / (high - low)
        else:
            part = y / marks_y[-1]
        return height - bottom - (height - top - bottom) * part

    parts = [text(left, 20, title, "t"), text(left, 40, axis_y, "q"), text(left, height - 26, axis_x, "q"),
             text(left, height - 8, caption, "q")]
    for y in marks_y:
        parts += [segment(left, py(y), width - right, py(y), "g"), text(left - 6, py(y) + 4, number(y), "", "end")]
    for x in marks_x:
        parts.append(text(px(x), height - bottom + 16, number(x), "", "middle"))
    if limit:
        parts.append(segment(left, py(limit[0]), width - right, py(limit[0]), "m"))
    names = []  # where each line ends, pushed apart below
    for i, (name, points) in enumerate(series):
        points = sorted(points)
        path = " ".join(f"{px(x):.1f},{py(y):.1f}" for x, y in points)
        parts.append(f'<polyline class="l s{i % len(LIGHT)}" points="{path}"/>')
        parts += [f'<circle cx="{px(x):.1f}" cy="{py(y):.1f}" r="2.5" class="f{i % len(LIGHT)}"/>' for x, y in points]
        names.append([py(points[-1][1]) + 4, f"{name}: {number(points[-1][1])}", f"f{i % len(LIGHT)}"])
    if limit:
        names.append([py(limit[0]) + 4, limit[1], "q"])
    names.sort()
    for before, after in zip(names, names[1:]):
        after[0] = max(after[0], before[0] + 14)
    for y, name, css in names:
        parts.append(f'<text x="{width - right + 8}" y="{y:.0f}"><tspan class="{css}">■</tspan> {escape(name)}</text>')
    return document(width, height, parts)


def ratios(rows, caption):
    """A bar for each workload: heist's price beside that of the best rival, which ends at the line."""
    left, unit, row_height, longest = 178, 280, 17, 1.6  # a ratio of 1 is `unit` wide
    width, y = 960, 66
    parts = [text(12, 22, "The price of one, heist beside the best rival of each workload", "t"),
             text(12, 40, "A bar that ends left of the line: heist is ahead. Thin: lowest and highest round. "
                          "Where more per second is better, the price is its reciprocal.", "q")]
    bars = []
    for name, workers, what, own, rival, other, ratio, low, high in rows:
        ratio, low, high = float(ratio), float(low), float(high)
        end = left + unit * min(ratio, longest)
        middle = y + 6
        bars.append(text(left - 8, y + 10, f"{name}, {workers} w.", "", "end"))
        bars.append(f'<rect x="{left}" y="{y}" width="{end - left:.1f}" height="12" class="f{0 if ratio <= 1 else 1}"/>')
        if high > low:
            bars.append(segment(left + unit * min(low, longest), middle, left + unit * min(high, longest), middle, "w"))
        more = "" if ratio <= longest else " →"
        bars.append(text(left + unit * longest + 10, y + 10, f"{ratio:.2f}{more}: heist {own}, {rival} {other} {what}"))
        y += row_height
    parts += bars
    parts.append(segment(left + unit, 54, left + unit, y, "m"))
    parts.append(text(left + unit, 60, "1", "q", "middle"))
    parts.append(text(12, y + 18, caption, "q"))
    return document(width, y + 30, parts)


def main():
    if len(sys.argv) != 3 or sys.argv[1] != "ratios":
        sys.exit(__doc__)
    rows = [line.rstrip("\n").split("\t") for line in sys.stdin]
    sys.stdout.write(ratios(rows, sys.argv[2]))


if __name__ == "__main__":
    main()
