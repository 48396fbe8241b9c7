"""Which fields a batch brings, and the first document that shows each."""

import json
from typing import Any

import numpy as np
import pytest

from cdc_shared.documents import DocumentSchema, Field, FieldPolicies, decode
from cdc_shared.documents import types as t
from delta_writer.transformers.schema_inferrer import FittedDocuments, fit_documents

pytestmark = pytest.mark.unit

NONE = FieldPolicies()
TABLE = DocumentSchema((Field("_id", t.LONG), Field("s", t.Struct((Field("known", t.LONG),)))))


def fitted(
    documents: list[dict[str, Any]], table: DocumentSchema = TABLE, *, without: tuple[int, ...] = ()
) -> FittedDocuments:
    decoded = decode([json.dumps({"_id": n, **each}) for n, each in enumerate(documents)], table)
    applied = np.array([n not in without for n in range(len(documents))])
    return fit_documents(decoded, table, NONE, applied)


@pytest.mark.parametrize(
    ("documents", "shown_by"),
    [
        ([{}, {"s": {"known": 1}}], {}),
        ([{}, {"a": None}, {"a": 1}, {"a": 2}], {"/a": 2}),
        ([{"a": 1}, {"a": 1.5}, {"b": "x"}], {"/a": 0, "/b": 2}),
        ([{}, {"s": {"new": 1}}], {"/s/new": 1}),
        ([{"o": {}}, {"o": {"x": 1}}, {"o": {"y": 2}}], {"/o": 0, "/o/x": 1, "/o/y": 2}),
        ([{"l": []}, {"l": [None]}, {"l": [{"a": 1}]}, {"l": [{}, {"b": 2}]}], {"/l": 0, "/l/*/a": 2, "/l/*/b": 3}),
        ([{"m": [[1]]}, {"m": [[], [{"x": 1}]]}], {"/m": 0}),  # mixed: one JSON column
        ([{"n": [[]]}, {"n": [[], [{"x": 1}]]}], {"/n": 0, "/n/*/*/x": 1}),
        ([{"a/b": 1, "c~d": 2}], {"/a~1b": 0, "/c~0d": 0}),
    ],
)
def test_the_first_document_that_shows_a_field_typed_is_named(documents, shown_by):
    assert fitted(documents).shown_by == shown_by


def test_a_field_in_a_list_of_structs_that_is_known():
    table = DocumentSchema((Field("_id", t.LONG), Field("l", t.List(t.Struct((Field("a", t.LONG),))))))
    documents = [{"l": [{"a": 1}]}, {"l": None}, {"l": [{"a": 1}, {"a": 2, "b": {"c": True}}]}]
    assert fitted(documents, table).shown_by == {"/l/*/b": 2, "/l/*/b/c": 2}


def test_documents_that_are_not_applied_are_not_named():
    assert fitted([{"a": 1}, {}, {"a": 2}], without=(0,)).shown_by == {"/a": 2}
    assert fitted([{"a": 1}], without=(0,)).shown_by == {}


def test_the_columns_are_the_tables_and_behind_them_the_new_ones():
    result = fitted([{"z": 1, "s": {"known": 5, "new": "x"}}])
    assert result.decoded.table.column_names == ["_id", "s", "z"]
    assert result.decoded.table.column("s").to_pylist() == [{"known": 5, "new": "x"}]


def test_no_type_of_a_column_is_changed():
    table = DocumentSchema((Field("_id", t.LONG), Field("n", t.LONG)))
    source = decode(['{"_id": 1, "n": "text", "m": 1}'], DocumentSchema(()))
    result = fit_documents(source, table, NONE, np.array([True]))
    assert result.decoded.schema.by_name["n"].type == t.LONG
    assert result.decoded.rescued.to_pylist() == ['{"/n":"text"}']
    assert result.shown_by == {"/m": 0}
