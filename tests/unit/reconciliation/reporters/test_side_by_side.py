"""What differs is marked where it differs, and is seen however long or deep it is."""

import json
import random

import pytest
from reconciliation_reports import difference

from reconciliation.reconciler.difference import Difference, How
from reconciliation.reporters.side_by_side import MARKED_LINES, PLAIN_LINES, VALUE_LENGTH, Line, _alike, side_by_side

pytestmark = pytest.mark.unit


def lines(made: Difference) -> list[Line]:
    shown = side_by_side(made)
    assert shown is not None
    return list(shown.lines)


def test_only_what_differs_is_marked_and_comes_first() -> None:
    made = difference(
        fields=[("/address/geo/lat", How.VALUE), ("/new", How.ONLY_IN_TABLE)],
        document={"_id": 1, "address": {"city": "Bern", "geo": {"lat": 1.5, "lon": 2}}},
        row={"_id": 1, "address": {"city": "Bern", "geo": {"lat": 2.5, "lon": 2}}, "new": None},
    )
    assert lines(made) == [
        Line("/address/geo/lat", "1.5", "2.5", "value"),
        Line("/new", None, "null", "only_in_table"),
        Line("/_id", "1", "1", None),
        Line("/address/city", '"Bern"', '"Bern"', None),
        Line("/address/geo/lon", "2", "2", None),
    ]


def test_elements_of_arrays_are_found_and_names_are_escaped() -> None:
    made = difference(
        fields=[("/a~1b/1/c~0", How.TYPE)],
        document={"a/b": [0, {"c~": "1"}]},
        row={"a/b": [0, {"c~": 1}]},
    )
    assert lines(made)[0] == Line("/a~1b/1/c~0", '"1"', "1", "type")


def test_a_field_that_neither_side_shows_is_still_told() -> None:
    made = difference(fields=[("/secret", How.VALUE)], document={"a": 1}, row={"a": 1})
    assert Line("/secret", None, None, "value") in lines(made)


def test_a_whole_document_may_differ() -> None:
    made = difference(fields=[("", How.VALUE)], document={"a": 1}, row={"a": 2})
    assert lines(made) == [Line("", '{"a": 1}', '{"a": 2}', "value")]


def test_one_side_alone_is_shown_and_no_side_is_nothing() -> None:
    assert lines(difference(document={"a": 1})) == [Line("/a", "1", None, None)]
    assert side_by_side(difference()) is None


def test_where_long_values_differ_is_in_sight() -> None:
    same = "x" * 50_000
    made = difference(fields=[("/a", How.VALUE)], document={"a": same + "LEFT"}, row={"a": same + "RIGHT"})
    line = lines(made)[0]
    assert line.left
    assert line.right
    assert "LEFT" in line.left
    assert "RIGHT" in line.right
    assert "characters alike" in line.left
    assert len(line.left) < VALUE_LENGTH + 100


def test_where_values_begin_to_differ_is_found_exactly(rng: random.Random) -> None:
    for _ in range(300):
        same = "".join(rng.choices("ab", k=rng.randrange(40)))
        first, second = same + "c" * rng.randrange(3), same + "d" * rng.randrange(3)
        assert _alike(first, second) == len(same)


def test_what_is_no_json_or_too_deep_is_shown_as_text() -> None:
    deep = "[" * 100_000 + "]" * 100_000
    for text in ("no json", deep, '{"a": "' + "x" * 300_000 + '"}'):
        made = Difference("1", None, difference().kind, (), text, None)
        line = lines(made)[0]
        assert line.left
        assert len(line.left) < 200


def test_many_fields_are_cut_and_counted() -> None:
    wide = {f"f{number}": number for number in range(1_000)}
    other = {name: -value for name, value in wide.items()}
    made = difference(fields=[(f"/f{number}", How.VALUE) for number in range(1, 500)], document=wide, row=other)
    shown = side_by_side(made)
    assert shown is not None
    assert len(shown.lines) == MARKED_LINES + PLAIN_LINES
    assert shown.left_out == 1_000 - len(shown.lines)
    assert json.loads(json.dumps([line.pointer for line in shown.lines]))[0] == "/f1"
