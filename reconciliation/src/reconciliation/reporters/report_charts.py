"""The geometry of a report's charts. The template draws them as inline SVG, in percent of their width.

A chart is a table with bars in it: what it shows can be read, copied and heard as well.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from cdc_shared.models.reconciliation import WRONG
from reconciliation.reporters.report import MEANINGS, Report, duration
from reconciliation.reporters.visible_text import shortened, visible

MAP_COLUMNS: Final = 32
CELL_PX: Final = 18
SHOWN_FIELDS: Final = 20
LEVELS: Final = 4
"""Shades of a range with wrong keys."""
LABEL_LENGTH: Final = 80
HOW_WORDS: Final = {
    "value": "value",
    "type": "type",
    "only_in_source": "only in MongoDB",
    "only_in_table": "only in the table",
}
_MIN_WIDTH: Final = 0.4
"""Percent: what is there is seen."""


@dataclass(frozen=True, slots=True)
class Segment:
    """A piece of a bar, in percent; `style` is a CSS class."""

    x: float
    width: float
    style: str


@dataclass(frozen=True, slots=True)
class Bar:
    """A line of a chart."""

    label: str
    segments: Sequence[Segment]
    value: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Cell:
    """A range of the digest map, in pixels; `title` says it in words."""

    x: int
    y: int
    style: str
    title: str


@dataclass(frozen=True, slots=True)
class DigestMap:
    """All ranges as cells, and how many of them are of which style."""

    width: int
    height: int
    cells: Sequence[Cell]
    is_equal: int
    is_wrong: int


def count_bars(report: Report) -> list[Bar]:
    """Return documents beside rows."""
    summary = report.result.summary
    most = max(summary.documents, summary.rows)
    return [
        Bar("documents in MongoDB", _from_zero(summary.documents, most, "source"), f"{summary.documents:,}"),
        Bar("rows in the table", _from_zero(summary.rows, most, "table"), f"{summary.rows:,}"),
    ]


def kind_bars(report: Report) -> list[Bar]:
    """Return the kinds of differences, with what they mean."""
    most = max((count for _, count in report.kinds), default=0)
    return [
        Bar(
            kind.replace("_", " "),
            _from_zero(count, most, "wrong" if kind in WRONG else "explained"),
            f"{count:,}",
            MEANINGS[kind],
        )
        for kind, count in report.kinds
    ]


def field_bars(report: Report) -> list[Bar]:
    """Return the fields that differ most, each in pieces by how."""
    shown = report.fields[:SHOWN_FIELDS]
    most = max((each.total for each in shown), default=0)
    bars = []
    for field in shown:
        segments: list[Segment] = []
        at = 0.0
        for how, count in sorted(field.by_how.items()):
            width = _width(count, most)
            segments.append(Segment(at, width, f"how-{how}"))
            at += width
        told = ", ".join(f"{count:,} {HOW_WORDS[how]}" for how, count in sorted(field.by_how.items()))
        bars.append(
            Bar(shortened(visible(field.pointer), LABEL_LENGTH) or "(whole)", segments, f"{field.total:,}", told)
        )
    return bars


def timeline_bars(report: Report) -> list[Bar]:
    """Return the phases on one axis of time, from the run's start to its end."""
    phases = sorted(report.result.summary.timeline, key=lambda each: each.began)
    if not phases:
        return []
    began = min(report.run.started_at, phases[0].began)
    starts = [(each.began - began).total_seconds() for each in phases]
    span_s = max(
        (report.run.finished_at - began).total_seconds(),
        *(at + each.seconds for at, each in zip(starts, phases, strict=True)),
        0.001,
    )
    return [
        Bar(
            visible(each.name).replace("_", " "),
            [Segment(min(100 * at / span_s, 100 - _MIN_WIDTH), _width(each.seconds, span_s), "phase")],
            duration(each.seconds),
            visible(each.detail),
        )
        for at, each in zip(starts, phases, strict=True)
    ]


def digest_map(report: Report) -> DigestMap | None:
    """Return the heat map; None when the run made no digests."""
    ranges = report.digest_map
    if not any(each.source_rows or each.sink_rows for each in ranges):
        return None
    cells = []
    most = max(report.wrong_by_range.values(), default=0)
    for number, each in enumerate(ranges):
        wrong = report.wrong_by_range.get(each.range, 0)
        style = _style(each.source_rows or each.sink_rows, each.differing, wrong, most)
        y, x = divmod(number, MAP_COLUMNS)
        told = f"{wrong:,} wrong" if wrong else "equal" if style == "equal" else f"{each.differing:,} differed at first"
        title = f"range {each.range:02x}: {each.source_rows:,} documents, {each.sink_rows:,} rows, {told}"
        cells.append(Cell(x * CELL_PX, y * CELL_PX, style, title))
    styles = [cell.style for cell in cells]
    return DigestMap(
        MAP_COLUMNS * CELL_PX,
        CELL_PX * math.ceil(len(ranges) / MAP_COLUMNS),
        cells,
        is_equal=styles.count("equal"),
        is_wrong=sum(style.startswith("wrong") for style in styles),
    )


def _style(rows: int, differing: int, wrong: int, most: int) -> str:
    if wrong:
        # Logarithmic: one wrong key is seen beside a range that is wrong from end to end.
        share = math.log1p(wrong) / math.log1p(most)
        return f"wrong-{max(1, math.ceil(LEVELS * share))}"
    if differing:
        return "settled"
    return "equal" if rows else "empty"


def _from_zero(value: float, most: float, style: str) -> list[Segment]:
    return [Segment(0, _width(value, most), style)] if value > 0 else []


def _width(value: float, most: float) -> float:
    return max(_MIN_WIDTH, round(100 * value / most, 2)) if most > 0 and value >= 0 else 0.0
