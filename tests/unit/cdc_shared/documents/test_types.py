"""Names of columns, and what each type is in Arrow."""

import pyarrow as pa
import pytest

from cdc_shared.documents import DocumentSchema
from cdc_shared.documents import types as t

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("name", "column"),
    [
        ("_id", "_id"),
        ("price", "price"),
        ("Größe", "Größe"),
        ("a.b", "a_b"),
        ("$x", "_x"),
        ("a$b", "a$b"),
        ("", "_"),
        ("a b,c;d{e}f(g)h\ni\tj=k", "a_b_c_d_e_f_g_h_i_j_k"),
        ('a"b`c\\d', "a_b_c_d"),
        ("\x00\x7f", "__"),
        ("😀", "😀"),
    ],
)
def test_column_names(name: str, column: str) -> None:
    assert t.column_name(name) == column
    assert t.Field(name, t.LONG).column == column
    assert t.column_name(column) == column


@pytest.mark.parametrize(
    ("name", "accepted"),
    [("b", True), ("A", False), ("a.b", True), ("A b", True), ("_cdc_x", False), ("_CDC_x", False), (".cdc_x", False)],
)
def test_names_that_get_a_column(name: str, accepted: bool) -> None:
    schema = DocumentSchema((t.Field("a", t.LONG),))
    assert schema.accepts_new(name, top_level=True, max_fields=9) is accepted


def test_reserved_names_are_free_below_the_top_level_and_a_full_struct_takes_none() -> None:
    struct = t.Struct((t.Field("a", t.LONG),))
    assert struct.accepts_new("_cdc_x", top_level=False, max_fields=9)
    assert not struct.accepts_new("b", top_level=False, max_fields=1)


def test_schemas_are_values() -> None:
    def make() -> DocumentSchema:
        return DocumentSchema((t.Field("a", t.List(t.Struct((t.Field("b", t.Decimal(18)),)))),))

    assert make() == make()
    assert hash(make()) == hash(make())
    assert make().storage.field("a").type == pa.list_(pa.field("element", pa.struct([("b", pa.decimal128(38, 18))])))


def test_what_looks_like_a_wrapper_or_is_json_is_not_read_fast() -> None:
    assert t.Struct((t.Field("$date", t.STRING),)).wire is None
    assert t.List(t.Struct((t.Field("x", t.JSON),))).wire is None
    assert t.Struct((t.Field("$x", t.STRING),)).wire == pa.struct([("$x", pa.string())])
