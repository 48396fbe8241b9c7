"""A report as one HTML file: no script, nothing from elsewhere, and a policy in it that forbids both.

Values of documents are hostile until shown otherwise: the template escapes everything, and what a browser would act on
within text is written out (`visible_text`).
"""

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from typing import TYPE_CHECKING, Final

from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from markupsafe import Markup

from cdc_shared.models.reconciliation import WRONG, DifferenceKind
from reconciliation.reporters import report_charts as charts
from reconciliation.reporters.report import MEANINGS, Report, duration, instant
from reconciliation.reporters.side_by_side import SideBySide, side_by_side
from reconciliation.reporters.visible_text import shortened, visible

if TYPE_CHECKING:
    from reconciliation.reconciler.difference import Difference

SHOWN_OF_A_KIND: Final = 25
"""Differences side by side; all of them are in the other forms."""
KEY_LENGTH: Final = 200
EXPLANATION_LENGTH: Final = 1_000
FIELDS_LENGTH: Final = 120
"""Of the fields that are named beside the key."""


@dataclass(frozen=True, slots=True)
class ShownDifference:
    """One difference, as the page has it."""

    key: str
    fields: str
    explanation: str
    rows: str
    rules_version: int | None
    sides: SideBySide | None


@dataclass(frozen=True, slots=True)
class ShownKind:
    """The first differences of a kind."""

    name: str
    meaning: str
    is_wrong: bool
    total: int
    differences: Sequence[ShownDifference]


def html_page(report: Report) -> str:
    """Return the page."""
    style = _style()
    return _template().render(
        style=Markup(style),  # nosec B704 # a file of ours
        style_hash=base64.b64encode(hashlib.sha256(style.encode()).digest()).decode(),
        name=visible(report.name),
        report=report,
        run=report.run,
        result=report.result,
        summary=report.result.summary,
        took=duration((report.run.finished_at - report.run.started_at).total_seconds()),
        notes=[visible(note) for note in report.result.summary.notes],
        counts=charts.count_bars(report),
        kinds=charts.kind_bars(report),
        fields=charts.field_bars(report),
        timeline=charts.timeline_bars(report),
        digest_map=charts.digest_map(report),
        cell_px=charts.CELL_PX,
        shown=_shown(report),
    )


def _shown(report: Report) -> list[ShownKind]:
    first: dict[DifferenceKind, list[Difference]] = {}
    for difference in report.result.differences:
        of_kind = first.setdefault(difference.kind, [])
        if len(of_kind) < SHOWN_OF_A_KIND:
            of_kind.append(difference)
    return [
        ShownKind(
            kind.replace("_", " "),
            MEANINGS[kind],
            kind in WRONG,
            max(report.result.summary.differences.get(kind, 0), len(first[kind])),
            [_shown_difference(each) for each in first[kind]],
        )
        for kind in DifferenceKind
        if kind in first
    ]


def _shown_difference(difference: "Difference") -> ShownDifference:
    return ShownDifference(
        visible(shortened(difference.key, KEY_LENGTH)),
        visible(shortened(", ".join(each.pointer for each in difference.fields), FIELDS_LENGTH)),
        visible(shortened(difference.explanation, EXPLANATION_LENGTH)),
        f"{difference.rows:,}" if difference.rows is not None else "",
        difference.rules_version,
        side_by_side(difference),
    )


@lru_cache(maxsize=1)
def _template() -> Template:
    environment = Environment(
        loader=PackageLoader("reconciliation.reporters"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["instant"] = instant
    environment.filters["how"] = charts.HOW_WORDS.__getitem__
    environment.filters["number"] = lambda value: f"{value:,}"
    return environment.get_template("report.html.j2")


@lru_cache(maxsize=1)
def _style() -> str:
    return (resources.files("reconciliation.reporters") / "templates" / "report.css").read_text()
