"""A report as JSON and CSV: whole, in pieces, readable by other programs, and without what the rules hide."""

import csv
import io
import json

import pytest
from reconciliation_reports import difference, report

from cdc_shared.models.reconciliation import DifferenceKind
from reconciliation.reconciler.difference import How
from reconciliation.reporters.report_generator import (
    CSV_COLUMNS,
    STORED_DIFFERENCES,
    STORED_TEXT,
    csv_pieces,
    json_pieces,
    stored_report,
)

pytestmark = pytest.mark.unit


def as_json(made):
    return json.loads(b"".join(json_pieces(made)))


def as_csv(made):
    return list(csv.DictReader(io.StringIO(b"".join(csv_pieces(made)).decode())))


def test_both_forms_hold_every_difference_in_order() -> None:
    found = [difference(key=f'{{"$oid":"{number:024x}"}}', rows=number) for number in range(1_203)]
    made = report(found)
    assert [each["key"] for each in as_json(made)["differences"]] == [each.key for each in found]
    assert [int(each["rows"]) for each in as_csv(made)] == list(range(1_203))
    assert as_json(made)["differences_total"] == 1_203
    assert len(list(json_pieces(made))) > 3, "a large report is made in pieces"


def test_a_report_without_differences_is_valid_as_well() -> None:
    made = report()
    assert as_json(made)["differences"] == []
    assert as_json(made)["outcome"] == "equal"
    assert b"".join(csv_pieces(made)).decode().strip() == ",".join(CSV_COLUMNS)


def test_no_form_holds_the_key_that_a_mask_hides() -> None:
    made = report([difference(key="hmac", source_key="the-real-id")])
    for text in (b"".join(json_pieces(made)), b"".join(csv_pieces(made)), json.dumps(stored_report(made)).encode()):
        assert b"the-real-id" not in text
        assert b"hmac" in text


def test_numbers_of_kinds_fields_and_ranges_are_those_of_the_differences() -> None:
    made = report(
        [
            difference(DifferenceKind.DIFFERENT, "1", [("/a", How.VALUE), ("/b/c", How.TYPE)]),
            difference(DifferenceKind.DIFFERENT, "2", [("/a", How.ONLY_IN_TABLE)]),
            difference(DifferenceKind.MISSING, "3"),
        ]
    )
    told = as_json(made)
    assert told["summary"]["differences"] == {"different": 2, "missing": 1}
    assert told["fields"] == [
        {"pointer": "/a", "by_how": {"value": 1, "only_in_table": 1}},
        {"pointer": "/b/c", "by_how": {"type": 1}},
    ]
    assert told["headline"] == "3 keys are wrong: 2 different, 1 missing."


@pytest.mark.parametrize("key", ["=1+1", "+cmd", "-x", "@sum", "\tx", "\r=x", "=1\n"])
def test_text_that_programs_would_calculate_is_text(key: str) -> None:
    assert as_csv(report([difference(key=key)]))[0]["key"] == f"'{key}"


@pytest.mark.parametrize("key", ["-5", "-5.25", "1e+5", '{"a":1}', "", "a,b", 'say "x"', "two\nlines"])
def test_other_text_is_as_it_is(key: str) -> None:
    assert as_csv(report([difference(key=key)]))[0]["key"] == key


def test_halves_of_surrogate_pairs_break_no_form() -> None:
    made = report([difference(key="\ud800", document={"a": "\x00\udfff"})])
    assert as_json(made)["differences"][0]["key"] == "\\ud800"
    assert as_csv(made)[0]["key"] == "\\ud800"


def test_what_postgres_keeps_is_bounded() -> None:
    long = "x" * (2 * STORED_TEXT)
    made = report(
        [difference(key=str(number), document={"a": long}, row={}) for number in range(STORED_DIFFERENCES + 5)]
    )
    kept = stored_report(made)
    assert len(kept["differences"]) == STORED_DIFFERENCES
    assert kept["differences_total"] == STORED_DIFFERENCES + 5
    assert len(kept["differences"][0]["document"]) == STORED_TEXT
    assert kept["differences"][0]["cut"] is True
    assert kept["differences"][0]["row"] == "{}"
