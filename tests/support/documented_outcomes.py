"""What docs/architecture/types.md says becomes of the corner values of `bson_cases`, read from its table."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TYPES_PAGE = Path(__file__).parents[2] / "docs" / "architecture" / "types.md"
HEADING = "## Corner values, end to end"
NONE = "–"


@dataclass(frozen=True)
class Outcome:
    """One row of the table: a field, the names of its values, and what they become."""

    field: str
    values: tuple[str, ...]
    column: str | None
    """The Delta type as `column_type` spells it; None when the field has no column."""
    cdc_type: str | None
    rescued: frozenset[str]
    """The values that are rescued, in whole or in part."""


def documented_outcomes() -> dict[str, Outcome]:
    """Field → its row."""
    section = TYPES_PAGE.read_text(encoding="utf-8").partition(HEADING)[2].partition("\n## ")[0]
    rows = [line.strip("|\n ").split(" | ") for line in section.splitlines() if line.startswith("| `")]
    outcomes = [_outcome(*(cell.strip() for cell in row)) for row in rows]
    assert outcomes, f"{TYPES_PAGE} has no table under {HEADING!r}"
    return {each.field: each for each in outcomes}


def column_type(type_json: Any) -> str:
    """A Delta type as in a table's schema, by name: a struct's members are left out, an array's element is not."""
    if not isinstance(type_json, dict):
        return str(type_json)
    return "struct" if type_json["type"] == "struct" else f"array<{column_type(type_json['elementType'])}>"


def _outcome(field: str, values: str, column: str, cdc_type: str, rescued: str) -> Outcome:
    return Outcome(_code(field), _names(values), _optional(column), _optional(cdc_type), frozenset(_names(rescued)))


def _names(cell: str) -> tuple[str, ...]:
    return () if cell == NONE else tuple(name.strip() for name in cell.split(";"))


def _optional(cell: str) -> str | None:
    return None if cell == NONE else _code(cell)


def _code(cell: str) -> str:
    return re.fullmatch(r"`(.+)`", cell)[1]  # type: ignore[index] # anything else is a mistake in the page
