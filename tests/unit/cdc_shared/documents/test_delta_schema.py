"""The schema in the Delta log is the schema: nothing is lost on the way there and back."""

import json
import random
from typing import Any

import pyarrow as pa
import pytest

from cdc_shared.documents import DocumentSchema, from_delta_schema, has_soft_deletes, parquet_schema, to_delta_schema
from cdc_shared.documents import types as t
from cdc_shared.errors import Fatal

pytestmark = pytest.mark.unit

SCALARS: list[t.FieldType] = [t.Scalar(kind) for kind in t.Kind]
SCALARS += [
    t.Decimal(10),
    t.Decimal(18),
    t.Number(18),
    t.Binary(0),
    t.Binary(3),
    t.Binary(4),
    t.Binary(0x80),
    t.Binary(0x10),
]


def schema_of(*types: t.FieldType) -> DocumentSchema:
    return DocumentSchema(tuple(t.Field(f"f{i}", type_) for i, type_ in enumerate(types)))


def random_type(rng: random.Random, depth: int = 0) -> t.FieldType:
    choice = rng.randrange(10 if depth < 4 else 6)
    if choice < 6:
        return rng.choice(SCALARS)
    if choice < 8:
        return t.List(random_type(rng, depth + 1))
    names = rng.sample(["a", "a.b", "$x", "", "É", "{z}", "t", "i", "pattern", "options"], rng.randrange(1, 5))
    return t.Struct(tuple(t.Field(name, random_type(rng, depth + 1)) for name in names))


def test_every_scalar_alone_in_a_list_and_in_a_struct() -> None:
    nested = [t.List(t.List(scalar)) for scalar in SCALARS]
    structs = [t.Struct((t.Field("m", scalar), t.Field("n.o", t.List(scalar)))) for scalar in SCALARS]
    schema = schema_of(*SCALARS, *nested, *structs, *map(t.List, structs))
    assert from_delta_schema(to_delta_schema(schema)) == schema


def test_random_schemas() -> None:
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    for _ in range(200):
        schema = schema_of(*(random_type(rng) for _ in range(rng.randrange(1, 6))))
        assert from_delta_schema(to_delta_schema(schema)) == schema


def test_fields_without_a_type_have_no_column() -> None:
    inner = t.Struct((t.Field("x", t.NULL), t.Field("y", t.LONG)))
    schema = DocumentSchema((t.Field("a", t.NULL), t.Field("b", inner), t.Field("c", t.List(inner))))
    known = t.Struct((t.Field("y", t.LONG),))
    assert from_delta_schema(to_delta_schema(schema)) == schema.typed()
    assert schema.typed() == DocumentSchema((t.Field("b", known), t.Field("c", t.List(known))))


def test_the_text_in_the_log() -> None:
    schema = DocumentSchema(
        (
            t.Field("_id", t.OBJECT_ID),
            t.Field("a.b", t.List(t.List(t.DATE))),
            t.Field("r", t.REGEX),
            t.Field("d", t.Decimal(18)),
        )
    )
    fields = {field["name"]: field for field in json.loads(to_delta_schema(schema))["fields"]}
    assert list(fields) == [*CDC_NAMES, "_id", "a_b", "r", "d"]
    assert fields["_cdc_key"] == {"name": "_cdc_key", "type": "string", "nullable": True, "metadata": {}}
    assert fields["_id"] == {"name": "_id", "type": "string", "nullable": True, "metadata": {"cdc.type": "objectId"}}
    assert fields["a_b"]["metadata"] == {"cdc.type": "array<array<date>>", "cdc.name": "a.b"}
    assert fields["a_b"]["type"]["elementType"] == {"type": "array", "elementType": "timestamp", "containsNull": True}
    assert [member["name"] for member in fields["r"]["type"]["fields"]] == ["pattern", "options"]
    assert fields["d"]["type"] == "decimal(38,18)"


CDC_NAMES = ["_cdc_key", "_cdc_source_ts", "_cdc_partition", "_cdc_offset", "_cdc_rules_version", "_cdc_rescued"]


def test_parquet_files_have_the_same_columns() -> None:
    schema = schema_of(*SCALARS)
    arrow = parquet_schema(schema, soft_deletes=True)
    delta = json.loads(to_delta_schema(schema, soft_deletes=True))["fields"]
    assert (
        arrow.names
        == [field["name"] for field in delta]
        == [*CDC_NAMES, "_cdc_deleted", *(f.column for f in schema.fields)]
    )
    assert arrow.field("_cdc_key") == pa.field("_cdc_key", pa.string())
    assert arrow.field("_cdc_source_ts").type == pa.timestamp("us", "UTC")
    assert [arrow.field(name).type for name in CDC_NAMES[2:5]] == [pa.int32(), pa.int64(), pa.int32()]


def test_soft_deletes_show() -> None:
    schema = schema_of(t.LONG)
    for soft_deletes in (False, True):
        text = to_delta_schema(schema, soft_deletes=soft_deletes)
        assert has_soft_deletes(text) is soft_deletes
        assert from_delta_schema(text) == schema


def changed(**field: Any) -> str:
    """The schema of a table with one column, `n.m`, changed behind our back."""
    delta = json.loads(to_delta_schema(DocumentSchema((t.Field("n", t.Struct((t.Field("m", t.LONG),))),))))
    delta["fields"][-1]["type"]["fields"][0] |= field
    return json.dumps(delta)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        (changed(metadata={}), "'n.m'"),
        (changed(metadata={"cdc.type": "decimal128"}), "'n.m'"),
        (changed(metadata={"cdc.type": "array<long>"}), "'n.m'"),
        (changed(metadata={"cdc.type": "array<long"}), "'n.m'"),
        (changed(metadata={"cdc.type": "struct"}), "'n.m'"),
        (changed(metadata={"cdc.type": "regex"}), "'n.m'"),
        (changed(metadata={"cdc.type": "decimal:0a"}), "'n.m'"),
        (changed(type="integer"), "'n.m'"),
        (changed(type={"type": "struct", "fields": []}), "'n.m'"),
        (
            to_delta_schema(DocumentSchema()).replace('"_cdc_offset","type":"long"', '"_cdc_offset","type":"string"'),
            "'_cdc_offset'",
        ),
        ('{"type":"struct","fields":[{"name":"id","type":"long","nullable":true,"metadata":{}}]}', "'_cdc_key'"),
        ("{}", "not a Delta struct"),
        ("not json", "not a Delta struct"),
    ],
)
def test_a_table_of_somebody_else_is_refused_by_name(text: str, named: str) -> None:
    with pytest.raises(Fatal, match=named):
        from_delta_schema(text)
