"""A report as JSON and CSV, piece by piece: a run may have found millions of differences.

No form holds `source_key` of a difference: where the rules mask `_id`, it is what they hide.
"""

import csv
import io
import itertools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import msgspec

from reconciliation.reporters.report import FORMAT, Report
from reconciliation.storable_text import storable_value

if TYPE_CHECKING:
    from reconciliation.reconciler.difference import Difference

STORED_DIFFERENCES: Final = 200
"""So many are in the report that Postgres keeps: it is read whole. All of them are rows of their own there."""
STORED_TEXT: Final = 4_096
"""Characters of a document in that report."""
CSV_COLUMNS: Final = ("number", "kind", "key", "explanation", "fields", "rows", "rules_version", "document", "row")
_PIECE_ROWS: Final = 500
_FORMULA: Final = re.compile(r"[=+\-@\t\r]")
_NUMBER: Final = re.compile(r"-?\d+(\.\d+)?([eE][+-]?\d+)?")


def json_pieces(report: Report) -> Iterator[bytes]:
    """Yield the whole report as one JSON object; its `differences` come last."""
    yield msgspec.json.encode(report_head(report))[:-1] + b',"differences":['
    between = b""
    for rows in _chunks(enumerate(report.result.differences, 1)):
        yield between + b",".join(msgspec.json.encode(difference_json(number, each)) for number, each in rows)
        between = b","
    yield b"]}"


def csv_pieces(report: Report) -> Iterator[bytes]:
    """Yield the differences as RFC 4180 in UTF-8: a line of `CSV_COLUMNS`, and a line for each.

    Programs that calculate take text that begins with = + - or @ for a formula: such text has a ' before it.
    """
    yield _csv_lines([CSV_COLUMNS])
    for rows in _chunks(enumerate(report.result.differences, 1)):
        yield _csv_lines(_csv_row(number, each) for number, each in rows)


def stored_report(report: Report) -> dict[str, Any]:
    """Return the report as Postgres keeps it: of the differences the first, their documents cut short."""
    first = itertools.islice(report.result.differences, STORED_DIFFERENCES)
    shown = [difference_json(number, each) for number, each in enumerate(first, 1)]
    for each in shown:
        for side in ("document", "row"):
            if each[side] is not None and len(each[side]) > STORED_TEXT:
                each[side], each["cut"] = each[side][:STORED_TEXT], True
    return {**report_head(report), "differences": shown}


def report_head(report: Report) -> dict[str, Any]:
    """Return everything but the differences, as JSON values."""
    run, result = report.run, report.result
    head = {
        "format": FORMAT,
        "pipeline": run.pipeline,
        "database": run.collection.database,
        "collection": run.collection.name,
        "job_id": run.job_id,
        "run_id": run.run_id,
        "requested_by": run.requested_by,
        "asked": {"mode": run.mode, "options": run.options.model_dump(mode="json")},
        "started_at": run.started_at,
        "finished_at": run.finished_at,
        "outcome": result.outcome,
        "verified_through": result.verified_through,
        "headline": report.headline,
        "summary": result.summary,
        "fields": report.fields,
        "digest_map": [
            {
                "range": each.range,
                "source_rows": each.source_rows,
                "table_rows": each.sink_rows,
                # As text: many readers of JSON have no integers of 64 bits.
                "source_digest": f"{each.source_digest:016x}",
                "table_digest": f"{each.sink_digest:016x}",
                "differing": each.differing,
                "wrong": report.wrong_by_range.get(each.range, 0),
            }
            for each in report.digest_map
        ],
        "differences_total": len(result.differences),
    }
    plain: dict[str, Any] = storable_value(msgspec.to_builtins(head, str_keys=True))
    return plain


def difference_json(number: int, difference: "Difference") -> dict[str, Any]:
    """Return one difference as JSON values; what no UTF-8 or no `jsonb` can hold is written as escapes."""
    plain: dict[str, Any] = storable_value(_plain_json(number, difference))
    return plain


def _plain_json(number: int, difference: "Difference") -> dict[str, Any]:
    return {
        "number": number,
        "kind": difference.kind.value,
        "key": difference.key,
        "explanation": difference.explanation,
        "fields": [{"pointer": each.pointer, "how": str(each.how)} for each in difference.fields],
        "rows": difference.rows,
        "rules_version": difference.rules_version,
        "document": difference.document,
        "row": difference.row,
    }


def _csv_row(number: int, difference: "Difference") -> list[Any]:
    cells: Mapping[str, Any] = difference_json(number, difference)
    fields = "; ".join(f"{each['pointer']} ({each['how']})" for each in cells["fields"])
    return [_cell(fields if name == "fields" else cells[name]) for name in CSV_COLUMNS]


def _cell(value: Any) -> Any:
    if isinstance(value, str) and _FORMULA.match(value) and not _NUMBER.fullmatch(value):
        return f"'{value}"
    return value


def _csv_lines(rows: Iterable[Sequence[Any]]) -> bytes:
    lines = io.StringIO(newline="")
    csv.writer(lines).writerows(rows)
    return lines.getvalue().encode()


def _chunks(numbered: "Iterable[tuple[int, Difference]]") -> "Iterator[list[tuple[int, Difference]]]":
    chunk = []
    for each in numbered:
        chunk.append(each)
        if len(chunk) == _PIECE_ROWS:
            yield chunk
            chunk = []
    if chunk:
        yield chunk
