"""What became of each field between two schemas, ours or another program's."""

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdc_shared.delta.schema_diff import field_changes, schema_digest, told
from cdc_shared.documents import DocumentSchema, Field, pointer_to, to_delta_schema, widened
from cdc_shared.documents import types as t
from cdc_shared.errors import Fatal

pytestmark = pytest.mark.unit

ADDRESS = t.Struct((Field("zip", t.STRING), Field("city", t.STRING)))
BEFORE = DocumentSchema(
    (
        Field("_id", t.LONG),
        Field("n", t.LONG),
        Field("address", ADDRESS),
        Field("contacts", t.List(t.Struct((Field("email", t.STRING),)))),
        Field("pattern", t.REGEX),
        Field("a/b~c", t.DATE),
        Field("wei rd", t.DOUBLE),
    )
)
TEXT = to_delta_schema(BEFORE)


def changes(*fields: Field) -> set[tuple[str, ...]]:
    """What leads from `BEFORE` to it with these fields in the place of those of their names, or behind them."""
    members = {field.name: field for field in (*BEFORE.fields, *fields)}
    after = to_delta_schema(DocumentSchema(tuple(members.values())))
    return {
        tuple(str(part) for part in (c.change, c.path, c.column, c.type, c.was) if part is not None)
        for c in field_changes(TEXT, after)
    }


def altered(change: Callable[[dict[str, dict[str, Any]]], Any]) -> str:
    """`TEXT` after a change of its top-level fields, which are given by name."""
    schema = json.loads(TEXT)
    fields = {field["name"]: field for field in copy.deepcopy(schema["fields"])}
    change(fields)
    return json.dumps({**schema, "fields": list(fields.values())})


def test_what_a_batch_adds_is_named_at_every_depth():
    wider = t.List(t.Struct((Field("email", t.STRING), Field("tags", t.List(t.STRING)))))
    assert changes(Field("new", t.DATE)) == {("added", "/new", "new", "date")}
    assert changes(Field("contacts", wider)) == {
        ("added", "/contacts/*/tags", "contacts.element.tags", "array<string>")
    }
    assert changes(Field("boss", t.Struct((Field("address", ADDRESS),)))) == {
        ("added", "/boss", "boss", "struct"),
        ("added", "/boss/address", "boss.address", "struct"),
        ("added", "/boss/address/zip", "boss.address.zip", "string"),
        ("added", "/boss/address/city", "boss.address.city", "string"),
    }


def test_paths_have_the_names_of_mongodb_and_columns_those_of_the_table():
    assert changes(Field("x.y", t.LONG)) == {("added", "/x.y", "x_y", "long")}
    assert changes(Field("a/b", t.LONG)) == {("added", "/a~1b", "a/b", "long")}


def test_a_promoted_field_says_from_what_to_what():
    assert changes(Field("n", t.Number(18))) == {("retyped", "/n", "n", "number:18", "long")}
    assert changes(Field("address", t.JSON)) == {
        ("retyped", "/address", "address", "json", "struct"),
        ("removed", "/address/zip", "address.zip", "string"),
        ("removed", "/address/city", "address.city", "string"),
    }


def test_members_of_a_scalar_that_is_stored_as_a_struct_are_no_fields():
    assert changes(Field("r", t.REGEX)) == {("added", "/r", "r", "regex")}


def test_the_same_schema_in_other_words_has_no_change_and_the_same_digest():
    reworded = json.dumps(json.loads(TEXT, object_pairs_hook=lambda pairs: dict(reversed(pairs))), indent=2)
    assert field_changes(TEXT, reworded) == []
    assert schema_digest(TEXT) == schema_digest(reworded)
    assert schema_digest(TEXT) != schema_digest(altered(lambda fields: fields["n"].update(nullable=False)))


def put(name: str, **words: Any) -> Callable[[dict[str, dict[str, Any]]], None]:
    return lambda fields: fields[name].update(words)


def rename_in_place(fields: dict[str, dict[str, Any]]) -> None:
    fields["n"]["name"] = "m"


def map_columns(fields: dict[str, dict[str, Any]]) -> None:
    """As Spark does for RENAME COLUMN."""
    for number, field in enumerate(fields.values()):
        mapping = {"delta.columnMapping.id": number, "delta.columnMapping.physicalName": field["name"]}
        field["metadata"] = {**field["metadata"], **mapping}
    fields["n"]["name"] = "m"
    del fields["wei_rd"]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda fields: fields.pop("n"), "column n (long) was dropped"),
        (lambda fields: fields.pop("address"), "column address (struct) was dropped"),
        (put("n", type="string"), "column n was long and is string"),
        (put("n", type="decimal(10,2)"), "column n was long and is decimal(10,2)"),
        (rename_in_place, "column n was renamed to m, or dropped and m added"),
        (map_columns, "column wei_rd (double) was dropped; column n was renamed to m, or dropped and m added"),
        (lambda fields: fields.update(x={"name": "x", "type": "string"}), "column x (string) was added"),
        (put("n", nullable=False), "column n is NOT NULL now"),
        (put("n", metadata={"cdc.type": "long", "comment": "k"}), "column n has other metadata (comment)"),
        (put("n", metadata={}), "column n has lost cdc.type (long) from its metadata"),
        (put("_cdc_key", type="long"), "column _cdc_key was string and is long"),
        (lambda fields: fields["address"]["type"]["fields"].pop(0), "column address.zip (string) was dropped"),
        (
            lambda fields: fields["contacts"]["type"].update(containsNull=False),
            "column contacts has other rules for NULL in its elements",
        ),
        (lambda fields: fields.update(n=fields.pop("n")), "the order of its columns"),
    ],
)
def test_what_people_do_to_a_table_is_told_column_by_column(change, expected):
    after = altered(change)
    assert told(field_changes(TEXT, after)).startswith(expected)
    assert schema_digest(after) != schema_digest(TEXT)


def test_many_changes_are_told_in_a_few_words():
    after = to_delta_schema(DocumentSchema(tuple(Field(f"f{n}", t.LONG) for n in range(40))))
    text = told(field_changes(to_delta_schema(DocumentSchema(())), after))
    assert text.count("was added") == 10
    assert text.endswith("and 30 changes more")


NAMES = st.sampled_from(["a", "b", "c", "x/y", "d.e", "", "long~name"])


def members_of(types: st.SearchStrategy[t.FieldType]) -> st.SearchStrategy[tuple[Field, ...]]:
    return st.lists(st.builds(Field, NAMES, types), max_size=4, unique_by=lambda field: field.column).map(tuple)


TYPES = st.recursive(
    st.sampled_from([t.LONG, t.STRING, t.JSON, t.REGEX, t.TIMESTAMP, t.Decimal(10), t.Number(18), t.Binary(0)]),
    lambda inner: st.one_of(inner.map(t.List), members_of(inner).map(t.Struct)),
    max_leaves=12,
)
SCHEMAS = members_of(TYPES).map(DocumentSchema)


def paths(struct: t.Struct, pointer: str = "") -> set[str]:
    """Every field, at every depth."""
    found = set()
    for member in struct.fields:
        at, type_ = pointer_to(pointer, member.name), member.type
        found.add(at)
        while isinstance(type_, t.List):
            at, type_ = f"{at}/*", type_.element
        if isinstance(type_, t.Struct):
            found |= paths(type_, at)
    return found


@given(SCHEMAS, SCHEMAS)
def test_any_two_schemas_differ_by_what_one_has_and_the_other_has_not(before, after):
    made = widened(before, after)  # all of `before`, and what only `after` has
    there = field_changes(to_delta_schema(before), to_delta_schema(made))
    back = field_changes(to_delta_schema(made), to_delta_schema(before))
    new = paths(made) - paths(before)
    assert {(each.change, each.path) for each in there} == {("added", path) for path in new}
    assert {(each.change, each.path) for each in back} == {("removed", path) for path in new}
    same = schema_digest(to_delta_schema(made)) == schema_digest(to_delta_schema(before))
    assert same is (made == before)


@given(SCHEMAS, SCHEMAS)
def test_every_change_is_told_whatever_it_is(before, after):
    changes = field_changes(to_delta_schema(before), to_delta_schema(after))
    assert told(changes)
    if {field.name: field.type for field in before.fields} != {field.name: field.type for field in after.fields}:
        assert changes


def test_what_is_no_schema_is_refused():
    for text in ("", "[]", "{}", '{"fields":[1]}', '{"fields":[{"name":"x"}]}'):
        with pytest.raises(Fatal, match="not a Delta struct"):
            field_changes(TEXT, text)
