"""What each transformation rule means, corner by corner: for a document alone and for a column of them."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest
from decoding import row_of
from ruled_documents import KEY

from cdc_shared.documents import (
    Decoded,
    DocumentSchema,
    canonical_document,
    canonical_row,
    decode,
    parse_document,
)
from cdc_shared.documents import types as t
from cdc_shared.models.data_quality import QualitySpec
from cdc_shared.rules.batch_transformation import Transformed
from cdc_shared.rules.compiled import Rules

pytestmark = pytest.mark.unit

Rule = dict[str, Any]


def rename(path: str, to: str) -> Rule:
    return {"rule": "rename", "path": path, "to": to}


def convert(path: str, to: str) -> Rule:
    return {"rule": "convert", "path": path, "to": to}


def drop(path: str) -> Rule:
    return {"rule": "drop", "path": path}


def constant(path: str, value: Any) -> Rule:
    return {"rule": "constant", "path": path, "value": value}


def flatten(path: str, separator: str = "_") -> Rule:
    return {"rule": "flatten", "path": path, "separator": separator}


def include(*paths: str) -> Rule:
    return {"rule": "include", "paths": paths}


def exclude(*paths: str) -> Rule:
    return {"rule": "exclude", "paths": paths}


def redact(path: str) -> Rule:
    return {"rule": "redact", "path": path, "text": "X"}


def partial(path: str) -> Rule:
    return {"rule": "partial", "path": path, "keep_last": 1}


def compiled(*rules: Rule, collection: str = "any") -> Rules:
    quality = QualitySpec.model_validate({"version": 1, "transformation": list(rules)})
    return Rules.compile(quality, collection, lambda _: KEY)


def transformed(rules: Rules, *texts: str, schema: DocumentSchema | None = None) -> Transformed:
    """The batch as columns, held against its documents."""
    result = rules.transform(decode(texts, schema or DocumentSchema()), texts)
    decoded = result.decoded
    decoded.table.validate(full=True)
    for row, text in enumerate(texts):
        if row not in decoded.invalid:
            expected = canonical_document(rules.transform_document(parse_document(text)))
            assert canonical_row(row_of(decoded, row), decoded.schema, decoded.rescued[row].as_py()) == expected
    return result


EXAMPLES: list[tuple[str, list[Rule], str, str]] = [
    ("a field gets another name", [rename("/a", "b")], '{"a": 1,"c": 2}', '{"b": 1,"c": 2}'),
    ("a sibling of that name gives way", [rename("/a", "b")], '{"a": 1,"b": 2}', '{"b": 1}'),
    ("but not to nothing", [rename("/a", "b")], '{"b": 2}', '{"b": 2}'),
    ("nor to null", [rename("/a", "b")], '{"a": null,"b": 2}', '{"b": 2}'),
    ("within objects", [rename("/o/a", "b")], '{"o": {"a": 1},"a": 2}', '{"o": {"b": 1},"a": 2}'),
    ("within arrays", [rename("/l/*/a", "b")],
     '{"l": [{"a": 1},null,{"b": 2},5]}', '{"l": [{"b": 1},null,{"b": 2},5]}'),
    ("names that need escapes", [rename("/x~1y", "~")], '{"x/y": 1}', '{"~": 1}'),
    ("each occurrence of a name", [rename("/a", "b")], '{"a": 1,"a": 2,"b": 3}', '{"b": 1,"b": 2}'),
    ("another column name", [rename("/a", "e mail")], '{"a": 1}', '{"e mail": 1}'),
    ("a clash of column names", [rename("/a", "B")], '{"a": 1,"b": 2}', '{"B": 1,"b": 2}'),
    ("dropped", [drop("/a")], '{"a": 1,"b": 2}', '{"b": 2}'),
    ("dropped each time", [drop("/a")], '{"a": 1,"b": 2,"a": 3}', '{"b": 2}'),
    ("the last member dropped", [drop("/o/a")], '{"o": {"a": 1}}', '{"o": {}}'),
    ("in arrays without a star", [drop("/l/a")], '{"l": [{"a": 1,"b": 2},[{"a": 3}]]}', '{"l": [{"b": 2},[{}]]}'),
    ("a star on what is no array", [drop("/o/*/a")], '{"o": {"a": 1,"b": 2}}', '{"o": {"b": 2}}'),
    ("a path through a text", [drop("/s/a")], '{"s": "a"}', '{"s": "a"}'),
    ("a constant where nothing is", [constant("/k", "v")], '{"a": 1}', '{"a": 1,"k": "v"}'),
    ("a constant over a value", [constant("/a", True)], '{"a": [1]}', '{"a": true}'),
    ("a constant over null", [constant("/a", 1)], '{"a": null}', '{"a": 1}'),
    ("a constant in objects that are there", [constant("/o/k", 1)], '{"o": {}}', '{"o": {"k": 1}}'),
    ("and not where there is none", [constant("/o/k", 1)], '{"a": 1}', '{"a": 1}'),
    ("a constant in objects of an array", [constant("/l/*/k", 2.5)],
     '{"l": [{"a": 1},null]}', '{"l": [{"a": 1,"k": 2.5},null]}'),
    ("a constant over a name that comes twice", [constant("/a", 1)], '{"a": 5,"a": 6}', '{"a": 1}'),
    ("flattened at every depth", [flatten("/o")], '{"o": {"a": 1,"p": {"b": 2}}}', '{"o_a": 1,"o_p_b": 2}'),
    ("arrays stay arrays", [flatten("/o", ".")], '{"o": {"l": [{"a": 1}]}}', '{"o.l": [{"a": 1}]}'),
    ("a sibling gives way to a value", [flatten("/o")],
     '{"o": {"a": 1,"b": null},"o_a": 2,"o_b": 3}', '{"o_a": 1,"o_b": 3}'),
    ("the least deep keeps the name", [flatten("/o")], '{"o": {"a": {"b": 1},"a_b": 2}}', '{"o_a_b": 2}'),
    ("unless it is null", [flatten("/o")], '{"o": {"a": {"b": 1},"a_b": null}}', '{"o_a_b": 1}'),
    ("no object, not flattened", [flatten("/o")], '{"o": 5}', '{"o": 5}'),
    ("an empty object, nothing left", [flatten("/o")], '{"o": {},"a": 1}', '{"a": 1}'),
    ("flattened within", [flatten("/l/*/o")], '{"l": [{"o": {"a": 1}}]}', '{"l": [{"o_a": 1}]}'),
    ("included", [include("/a", "/o/b")],
     '{"_id": 1,"a": 1,"o": {"b": 2,"c": 3},"x": 4}', '{"_id": 1,"a": 1,"o": {"b": 2}}'),
    ("of what is no object, no part", [include("/o/b")], '{"o": 5}', "{}"),
    ("of an object without the part, the object", [include("/o/b")], '{"o": {"c": 1}}', '{"o": {}}'),
    ("parts of an array's objects", [include("/l/*/b")],
     '{"l": [{"b": 1,"c": 2},5,null]}', '{"l": [{"b": 1},null,null]}'),
    ("excluded", [exclude("/a", "/o/b")], '{"a": 1,"o": {"b": 2,"c": 3}}', '{"o": {"c": 3}}'),
    ("redacted, whatever it is", [redact("/a")], '{"a": {"b": [1]}}', '{"a": "X"}'),
    ("null is not masked", [redact("/a")], '{"a": null,"b": 1}', '{"b": 1}'),
    ("nor in arrays", [redact("/l/*")], '{"l": [1,null,"x"]}', '{"l": ["X",null,"X"]}'),
    ("the array, not its elements", [redact("/l")], '{"l": [1,2]}', '{"l": "X"}'),
    ("an element that is one value alone", [redact("/l/*")], '{"l": "x"}', '{"l": "X"}'),
    ("an object that became an array", [redact("/o/a")], '{"o": [{"a": 1},{"b": 2}]}', '{"o": [{"a": "X"},{"b": 2}]}'),
    ("an array that became an object", [redact("/l/*/a")], '{"l": {"a": {"b": 1}}}', '{"l": {"a": "X"}}'),
    ("masked each time", [redact("/a")], '{"a": 1,"b": 2,"a": 3}', '{"a": "X","b": 2,"a": "X"}'),
    ("masked each time within", [redact("/o/a")], '{"o": {"a": 1,"a": 2,"b": 3}}', '{"o": {"a": "X","a": "X","b": 3}}'),
    ("masked under its new name", [rename("/a", "b"), partial("/b")], '{"a": "xyz"}', '{"b": "**z"}'),
    ("masked, then moved", [redact("/o/a"), flatten("/o")], '{"o": {"a": 1,"b": 2}}', '{"o_a": "X","o_b": 2}'),
    ("moved, then masked", [flatten("/o"), redact("/o_a")], '{"o": {"a": 1,"b": 2}}', '{"o_a": "X","o_b": 2}'),
    ("within, then around", [redact("/o/a"), redact("/o")], '{"o": {"a": 1}}', '{"o": "X"}'),
    ("converted", [convert("/a", "long")], '{"a": "5"}', '{"a": 5}'),
    ("not exact, not converted", [convert("/a", "long")], '{"a": "5.5"}', '{"a": "5.5"}'),
    ("elements converted", [convert("/l/*", "string")], '{"l": [1,null,2.5]}', '{"l": ["1",null,"2.5"]}'),
    ("one after the other", [convert("/a", "string"), partial("/a")], '{"a": 123}', '{"a": "**3"}'),
]  # fmt: skip


@pytest.mark.parametrize(("rules", "text", "expected"), [each[1:] for each in EXAMPLES], ids=[e[0] for e in EXAMPLES])
def test_a_rule(rules: list[Rule], text: str, expected: str) -> None:
    applied = compiled(*rules)
    document = parse_document(text)
    assert canonical_document(applied.transform_document(document)) == canonical_document(expected)
    assert canonical_document(document) == canonical_document(text), "the document that was given is another one now"
    transformed(applied, text)
    transformed(applied, text, text, '{"_id": 1}')
    for _, _, other, _ in EXAMPLES[::7]:  # a table that knows these names with other types
        transformed(applied, text, schema=decode([other], DocumentSchema()).schema)


def test_odd_neighbours_in_one_batch() -> None:
    texts = [each[2] for each in EXAMPLES]
    for _, rules, _, _ in EXAMPLES[::3]:
        transformed(compiled(*rules), *texts)


# --- columns ----------------------------------------------------------------------------------------------------------


def types(decoded: Decoded) -> dict[str, str]:
    return {field.name: field.type.text for field in decoded.schema.stored}


UNIFORM = [
    f'{{"_id": {n},"name": "n{n}","mail": "u{n}@x.org","o": {{"zip": "0{n}","n": {n}}},"l": [{{"m": "x{n}"}}]}}'
    for n in range(100)
]


def test_uniform_documents_are_transformed_as_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    rules = compiled(
        rename("/name", "who"), redact("/mail"), partial("/o/zip"), convert("/o/n", "string"), constant("/k", 1),
        partial("/l/*/m"), flatten("/o"),
    )  # fmt: skip
    schema = decode(UNIFORM, DocumentSchema()).schema
    decoded = decode(UNIFORM, schema)
    monkeypatch.setattr("cdc_shared.rules.batch_transformation.parse_document", None)
    result = rules.transform(decoded, UNIFORM)
    assert result.decoded.rescued.null_count == 100
    assert types(result.decoded) == {
        "_id": "long", "who": "string", "mail": "string", "l": "array<struct>", "k": "long", "o_zip": "string",
        "o_n": "string",
    }  # fmt: skip
    assert result.counts == {
        ("redact", "/mail"): 100, ("partial", "/o/zip"): 100, ("convert", "/o/n"): 100, ("partial", "/l/*/m"): 100,
    }  # fmt: skip


def test_values_without_an_exact_conversion_are_rescued() -> None:
    result = transformed(compiled(convert("/a", "long")), '{"a": "5"}', '{"a": "x"}', '{"a": "7"}')
    assert result.decoded.table["a"].to_pylist() == [5, None, 7]
    assert result.decoded.rescued.to_pylist() == [None, '{"/a":"x"}', None]
    assert result.counts == {("convert", "/a"): 2}
    assert result.decoded.stats.rescued_rows == result.decoded.stats.rescued_values == 1
    assert {pointer: dict(kinds) for pointer, kinds in result.decoded.stats.conflicts.items()} == {"/a": {"string": 1}}


def test_conflicts_of_fields_that_rules_change_are_those_of_their_result() -> None:
    schema = DocumentSchema((t.Field("a", t.LONG), t.Field("b", t.LONG)))
    result = transformed(compiled(redact("/a")), '{"a": "x","b": "y"}', '{"a": 1,"b": 2}', schema=schema)
    assert result.decoded.table["a"].to_pylist() == ["X", "X"]
    assert set(result.decoded.stats.conflicts) == {"/b"}
    assert result.decoded.stats.rescued_values == 1


def test_values_in_json_columns_count_as_often_as_they_come() -> None:
    schema = DocumentSchema((t.Field("j", t.JSON),))
    texts = ['{"j": {"m": "s"}}', '{"j": {"m": "s"}}', '{"j": [{"m": 1},{"m": 2},{"m": 3}]}', '{"j": "m"}']
    result = transformed(compiled(redact("/j/m")), *texts, schema=schema)
    assert result.counts == {("redact", "/j/m"): 6}, "the text that ends the path is one"
    assert types(result.decoded) == {"j": "json"}


def test_objects_in_a_json_column_are_flattened() -> None:
    struct = t.Struct((t.Field("j", t.JSON), t.Field("a", t.LONG)))
    schema = DocumentSchema((t.Field("j", t.JSON), t.Field("o", struct)))
    texts = ['{"j": {"m": 1}}', '{"j": 5,"o": {"j": {"x": 1},"a": 2}}', '{"o": {"j": [1],"a": 3}}']
    result = transformed(compiled(flatten("/j"), flatten("/o")), *texts, schema=schema)
    assert {"j_m", "j", "o_j", "o_a", "o_j_x"} <= set(types(result.decoded))


def test_of_members_that_come_to_one_name_in_columns_the_least_deep_stays() -> None:
    texts = [
        '{"o": {"a": {"b": 1},"a_b": 2}}',
        '{"o": {"a": {"b": 3}}}',
        '{"o_a_b": 4}',
        '{"o": {"a_b": 5},"o_a_b": 6}',
    ]
    result = transformed(compiled(flatten("/o")), *texts)
    assert result.decoded.table["o_a_b"].to_pylist() == [2, 3, 4, 5]


def test_a_rescued_sibling_gives_way_too() -> None:
    schema = DocumentSchema(
        (t.Field("a", t.LONG), t.Field("b", t.LONG), t.Field("o", t.Struct((t.Field("x", t.LONG),))))
    )
    texts = ['{"a": 1,"b": "rescued"}', '{"b": "rescued"}', '{"o": {"x": 1},"o_x": "r"}', '{"o": {"x": 1},"o_x": 2}']
    result = transformed(compiled(rename("/a", "b"), flatten("/o")), *texts, schema=schema)
    assert result.decoded.table["b"].to_pylist()[0] == 1
    assert result.decoded.rescued.to_pylist()[0] is None
    assert result.decoded.table["o_x"].to_pylist()[2:] == [1, 1]


def test_members_that_stay_under_one_name_are_rescued_with_the_whole_document() -> None:
    texts = ['{"_id": 1,"o": {"b": 2,"b": 3},"c": [],"n": {"x": "y"}}', '{"_id": 2,"o": {"b": 2},"c": [1]}']
    result = transformed(compiled(flatten("/o")), *texts)
    assert result.decoded.table["c"].to_pylist() == [None, [1]]
    assert len(json.loads(result.decoded.rescued[0].as_py())) == 1


def test_what_is_no_document_stays_so() -> None:
    result = transformed(compiled(constant("/k", 1), redact("/a")), '{"a": 1}', "no document", '{"a": 2}')
    assert set(result.decoded.invalid) == {1}
    assert result.decoded.table.to_pylist() == [{"a": "X", "k": 1}, {"a": None, "k": None}, {"a": "X", "k": 1}]


def test_batches_without_rows_or_columns() -> None:
    rules = compiled(redact("/a"), constant("/k", 1), drop("/b"), flatten("/o"))
    assert types(transformed(rules).decoded) == {"k": "long"}
    schema = decode(['{"a": 1,"b": 2,"o": {"x": {"y": 1}}}'], DocumentSchema()).schema
    assert types(transformed(rules, schema=schema).decoded) == {"a": "string", "k": "long", "o_x_y": "long"}
    assert transformed(compiled(drop("/b")), '{"b": 2}', "{}").decoded.table.num_columns == 0
    assert transformed(rules, "{}", '{"a": null}').decoded.table["k"].to_pylist() == [1, 1]


def test_rules_are_for_their_collections() -> None:
    here, elsewhere = redact("/a") | {"collections": ["here"]}, redact("/a") | {"collections": ["elsewhere"]}
    assert compiled(elsewhere, collection="here").transforms is False
    document = parse_document('{"a": 1}')
    assert compiled(here, collection="here").transform_document(document) == {"a": "X"}
    assert compiled(elsewhere, collection="here").transform_document(document) == {"a": 1}


# --- keys, names ------------------------------------------------------------------------------------------------------


def test_keys_are_shown_nowhere(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    secret = b"top-secret-key-of-this-test"
    quality = QualitySpec.model_validate({"transformation": [{"rule": "hash", "path": "/a", "key": "secret:pii"}]})
    rules = Rules.compile(quality, "any", lambda _: secret)
    rules.transform(decode(['{"a": 1}'], DocumentSchema()), ['{"a": 1}'])
    shown = repr(rules) + str(vars(rules)) + str(rules.masks) + repr(rules._transformation._steps) + caplog.text
    assert "top-secret" not in shown


ENDING_EARLY = [
    ('{"a": "4111-9999"}', {"a": "********9"}),
    ('{"a": 4111}', {"a": "***1"}),
    ('{"a": true}', {"a": "***"}),
    ('{"a": null}', {"a": None}),
    ('{"a": {}}', {"a": {}}),
    ('{"a": {"other": "4111"}}', {"a": {"other": "4111"}}),
    ('{"a": []}', {"a": []}),
    ('{"a": ["41", null, {"b": {"c": "42"}}, [43], {"d": 44}]}',
     {"a": ["*1", None, {"b": {"c": "*2"}}, ["*3"], {"d": 44}]}),
    ('{"a": [41, 42]}', {"a": ["*1", "*2"]}),
    ('{"a": {"b": "41"}}', {"a": {"b": "*1"}}),
    ('{"a": {"b": [{"c": "41"}, "42"]}}', {"a": {"b": [{"c": "*1"}, "*2"]}}),
    ('{"a": "41", "a": {"b": 42}}', None),
]  # fmt: skip


@pytest.mark.parametrize("type_", [None, t.STRING, t.LONG, t.JSON, t.TEXT, t.List(t.STRING), t.List(t.JSON)])
def test_a_mask_reaches_the_value_that_ends_its_path(type_: t.FieldType | None) -> None:
    """Each document alone, and all in one batch, whatever the table knows of the field."""
    schema = None if type_ is None else DocumentSchema((t.Field("a", type_),))
    rules = compiled(partial("/a/*/b/c"))
    for text, expected in ENDING_EARLY:
        transformed(rules, text, schema=schema)
        if expected is not None:
            assert rules.transform_document(parse_document(text)) == expected
    transformed(rules, *(text for text, _ in ENDING_EARLY), schema=schema)


def test_a_text_column_stays_one_where_a_path_ends_early() -> None:
    schema = DocumentSchema((t.Field("a", t.TEXT), t.Field("j", t.JSON), t.Field("n", t.LONG)))
    texts = ['{"a": "4111", "j": "4111", "n": 4111}', '{"a": {"b": "42"}, "j": {"b": "42"}, "n": null}']
    result = transformed(compiled(partial("/a/b"), partial("/j/b"), partial("/n/b")), *texts, schema=schema)
    assert result.decoded.table.to_pylist() == [
        {"a": "***1", "j": '"***1"', "n": "***1"}, {"a": '{"b": "*2"}', "j": '{"b":"*2"}', "n": None},
    ]  # fmt: skip
    assert result.decoded.schema == DocumentSchema((t.Field("a", t.TEXT), t.Field("j", t.JSON), t.Field("n", t.STRING)))
    assert result.counts == {("partial", "/a/b"): 2, ("partial", "/j/b"): 2, ("partial", "/n/b"): 1}


def test_no_other_rule_reaches_a_value_that_ends_its_path() -> None:
    rules = compiled(convert("/a/b", "string"), drop("/a/c"), rename("/a/d", "e"), constant("/a/f", 1), flatten("/a/g"))
    result = transformed(rules, '{"a": 5}', '{"a": 6}')
    assert result.decoded.table.to_pylist() == [{"a": 5}, {"a": 6}]
    assert not result.counts


def test_a_schema_before_the_rules() -> None:
    rules = compiled(
        rename("/a", "b"), redact("/m"), convert("/n", "long"), constant("/k", 1), flatten("/o"), drop("/d"),
        redact("/l/*/x"), redact("/early/x"), redact("/ends/*/x"), redact("/json/x"), redact("/text/x"),
    )  # fmt: skip
    texts = [t.Field(name, t.STRING) for name in ("_id", "b", "m", "n", "k", "o_x", "plain")]
    objects = t.List(t.Struct((t.Field("x", t.STRING), t.Field("y", t.LONG))))
    of_any_value = (t.Field("json", t.JSON), t.Field("text", t.TEXT))
    ends = (t.Field("early", t.STRING), t.Field("ends", t.List(t.DATE)))
    table = DocumentSchema((*texts, t.Field("l", objects), *ends, *of_any_value))
    source = rules.source_schema(table)
    assert source == DocumentSchema(
        (
            t.Field("_id", t.STRING),
            t.Field("a", t.STRING),
            t.Field("plain", t.STRING),
            t.Field("l", t.List(t.Struct((t.Field("y", t.LONG),)))),
            *of_any_value,
        )
    )
    assert compiled().source_schema(table) == table


def test_where_masked_fields_came_from_and_went() -> None:
    rules = compiled(
        rename("/a", "b"), redact("/b"), flatten("/o"), redact("/o_zip"), redact("/l/*"), redact("/q/m"),
        rename("/q", "r"), redact("/gone"), drop("/gone"),
    )  # fmt: skip
    assert [(mask.path, mask.sources, mask.table_path) for mask in rules.masks] == [
        ("/b", ("/a", "/b"), "/b"),
        ("/o_zip", ("/o", "/o_zip"), "/o_zip"),
        ("/l/*", ("/l/*",), "/l/*"),
        ("/q/m", ("/q/m",), "/r/m"),
        ("/gone", ("/gone",), None),
    ]
