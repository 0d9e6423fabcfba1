"""Charts as static SVG, drawn by pygal.

What pygal adds for a page of its own is taken out again: its scripts, its style sheets (8 kB for each
chart, in fixed colours; the page has one for all, with a light and a dark side), texts that only its
scripts would show, and the date. What a screen reader needs is put in: a role, a title, a description.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import datetime
from statistics import median
from typing import Any
from xml.etree.ElementTree import Element

import pygal
from pygal.style import Style

VERDICTS = ("pass", "warn", "fail")
_HEIGHTS = {"pass": 1, "warn": 2, "fail": 3}
"""So that a strip can be read without its colours."""

_SMALL = {"width": 400, "height": 48, "margin": 2, "show_legend": False}
_LARGE = {"width": 400, "height": 210, "margin": 6, "show_legend": False}
"""As wide as a phone, so that the labels are as large there as they are drawn."""

_BARE = {"show_x_labels": False, "show_y_labels": False, "show_y_guides": False, "range": (0, 3)}
_STYLE = Style(label_font_size=13, major_label_font_size=13, font_family="inherit")
_SKEWED = 20
"""Times the median."""


def history(name: str, verdicts: Sequence[str], title: str, description: str) -> str:
    """A bar for each evaluation, the oldest first: low passed, middle warned, high failed."""
    chart = pygal.StackedBar(**_options(), **_SMALL, **_BARE)
    for verdict in VERDICTS:
        heights = [_HEIGHTS[verdict] if found == verdict else None for found in verdicts]
        chart.add(verdict, heights, formatter=str)
    return _render(chart, name, title, description)


def is_skewed(numbers: Sequence[float]) -> bool:
    """Whether a few numbers would flatten all others, as a first load does."""
    counted = [number for number in numbers if number]
    return bool(counted) and min(counted) >= 1 and max(counted) > _SKEWED * median(counted)


def bars(
    name: str,
    points: Sequence[tuple[datetime, float | None]],
    title: str,
    description: str,
    logarithmic: bool = False,
) -> str:
    """A bar for each load."""
    numbers = [value for _, value in points if value]
    chart = pygal.Bar(
        **_options(),
        **_LARGE,
        **_axes(points),
        logarithmic=logarithmic,
        value_formatter=_short,
        **_scale(numbers, logarithmic),
    )
    chart.add(title, [(value or None) if logarithmic else value for _, value in points])
    return _render(chart, name, title, description)


def line(
    name: str,
    points: Sequence[tuple[datetime, float | None]],
    title: str,
    description: str,
) -> str:
    """A dot for each load, joined."""
    numbers = [value for _, value in points if value is not None]
    chart = pygal.Line(
        **_options(),
        **_LARGE,
        **_axes(points),
        value_formatter=_short,
        dots_size=2 if len(points) > 20 else 3,
        **_scale(numbers, logarithmic=False),
    )
    chart.add(title, [value for _, value in points])
    return _render(chart, name, title, description)


def _scale(numbers: Sequence[float], logarithmic: bool) -> dict[str, Any]:
    """Few lines, on round numbers, the lowest at zero or one."""
    highest = float(max([*numbers, 1]))
    if logarithmic:
        powers = math.ceil(math.log10(highest))
        every = max(1, math.ceil(powers / 4))
        labels = [10**power for power in range(0, powers + every, every)]
        return {"y_labels": labels, "range": (1, labels[-1])}
    size = 10.0 ** math.floor(math.log10(highest / 2))
    step = next(size * factor for factor in (1, 2, 5, 10) if size * factor * 4 >= highest)
    count = math.ceil(highest / step)
    return {"y_labels": [n * step for n in range(count + 1)], "range": (0, count * step)}


def _axes(points: Sequence[tuple[datetime, float | None]]) -> dict[str, Any]:
    """Times below the first and the last point; more would not fit on a phone."""
    labels = [""] * len(points)
    for place in {0, len(points) - 1} if points else set():
        labels[place] = f"{points[place][0]:%d %b %H:%M}"
    return {"x_labels": labels, "truncate_label": -1}


def _short(number: float) -> str:
    for size, unit in ((1e6, " M"), (1e3, " k")):
        if number >= size:
            return f"{number / size:g}{unit}"
    return f"{number:g}"


def _options() -> dict[str, Any]:
    return {
        "style": _STYLE,
        "js": (),
        "css": (),
        "no_prefix": True,
        "disable_xml_declaration": True,
    }


def _render(chart: Any, name: str, title: str, description: str) -> str:
    chart.add_xml_filter(_without_scripts)
    chart.add_xml_filter(lambda root: _for_screen_readers(root, name, title, description))
    return str(chart.render(is_unicode=True))


def _without_scripts(root: Element) -> Element:
    """Nor styles, comments, bars of no height, places without a label, and texts that only a script
    would show."""
    for parent in list(root.iter()):
        for child in list(parent):
            if _is_superfluous(child):
                parent.remove(child)
    return root


def _is_superfluous(element: Element) -> bool:
    tag: Any = element.tag  # of a comment, a function
    kind = element.get("class", "").split()
    return (
        not isinstance(tag, str)
        or tag in ("desc", "title", "defs", "script", "style")
        or bool({"text-overlay", "tooltip-overlay", "titles"} & {*kind})
        or ("guides" in kind and not "".join(element.itertext()))
        or element.get("height") == "0.0"
    )


def _for_screen_readers(root: Element, name: str, title: str, description: str) -> Element:
    root.set("role", "img")
    root.set("id", f"chart-{name}")
    root.set("aria-labelledby", f"chart-{name}-title chart-{name}-desc")
    for position, (tag, text) in enumerate((("title", title), ("desc", description))):
        element = Element(tag, {"id": f"chart-{name}-{tag}"})
        element.text = text
        root.insert(position, element)
    return root
