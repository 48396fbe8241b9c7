"""The types that columns are promoted to."""

import pytest
from tests.support.decoding import decoded, known

from cdc_shared.documents import FieldPolicies, infer, type_wide_enough
from cdc_shared.documents import types as t
from cdc_shared.documents.kinds import NAME_CLASH, TOO_MANY_MEMBERS

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("type_", "kinds", "wide"),
    [
        (t.LONG, ["double"], t.DOUBLE),
        (t.DOUBLE, ["long"], t.Number(18)),
        (t.LONG, ["double", "string"], t.JSON),
        (t.LONG, ["decimal"], t.JSON),
        (t.Decimal(10), ["decimal"], t.JSON),
        (t.Number(18), ["double"], t.JSON),
        (t.STRING, ["long"], t.JSON),
        (t.DATE, ["date"], t.JSON),
        (t.List(t.LONG), ["array"], t.JSON),
        (t.Struct((t.Field("a", t.LONG),)), [TOO_MANY_MEMBERS, NAME_CLASH], t.JSON),
        (t.Struct((t.Field("a", t.LONG),)), [NAME_CLASH], None),
        (t.JSON, ["string"], None),
        (t.TEXT, ["string"], None),
        (t.LONG, [], None),
    ],
)
def test_the_narrowest_type_that_is_wide_enough(type_: t.FieldType, kinds: list[str], wide: t.FieldType | None) -> None:
    assert type_wide_enough(type_, kinds) == wide


def test_the_kinds_come_from_the_conflicts_that_decoding_counts() -> None:
    schema = known(a=t.LONG, s=t.Struct((t.Field("x", t.LONG),)), l=t.List(t.LONG), m=t.Struct((t.Field("m", t.LONG),)))
    result = decoded(
        '{"a": 2.5,"s": {"x": "y","X": 1},"l": ["x"]}',
        '{"a": 2.5,"s": 5,"l": 5}',
        '{"a": {"$numberDecimal": "1"},"A": 1,"_cdc_x": 1,"m": {"m": 1,"n": 2}}',
        '{"s": {"x": {"b": 1,"b": 2}}}',
        '{"a": 1,"a": 2}',
        schema=schema,
        max_struct_fields=1,
    )
    assert result.stats.conflicts == {
        "/a": {"double": 2, "decimal": 1},
        "/s/x": {"string": 1},
        "/s": {"name clash": 1, "long": 1, "duplicate names": 1},
        "/l": {"array": 1, "long": 1},
        "/m": {"too many members": 1},
        "": {"name clash": 2, "duplicate names": 1},
    }


def test_what_a_text_column_shows_and_what_has_no_type_yet_is_no_conflict() -> None:
    result = decoded('{"a": 5,"b": []}', schema=known(a=t.TEXT, b=t.NULL))
    assert result.stats.rescued_values == 2
    assert result.stats.conflicts == {}


# --- policies ---------------------------------------------------------------------------------------------------------


def inferred(*texts: str, **policies: object) -> dict[str, t.FieldType]:
    schema = infer(texts, t.DocumentSchema(), policies=FieldPolicies(**policies))  # type: ignore[arg-type]
    return {field.name: field.type for field in schema.fields}


def test_a_named_field_has_its_type_from_its_first_value_on() -> None:
    named = (("/a", "json"), ("/s/b", "string"), ("/l/*/c", "json"), ("/n", "json"))
    assert inferred('{"a": 1,"s": {"b": 1,"c": 1},"l": [{"c": 1,"d": 1}],"n": null}', named=named) == {
        "a": t.JSON,
        "s": t.Struct((t.Field("b", t.TEXT), t.Field("c", t.LONG))),
        "l": t.List(t.Struct((t.Field("c", t.JSON), t.Field("d", t.LONG)))),
        "n": t.NULL,
    }


def test_the_default_changes_only_fields_that_mix_kinds() -> None:
    texts = ('{"a": 1,"b": 1,"c": {"x": 1}}', '{"a": "x","b": 2.5,"c": {"x": true}}', '{"a": "x"}')
    assert inferred(*texts, default="json")["a"] == t.JSON
    assert inferred(*texts, default="string") == {
        "a": t.TEXT,
        "b": t.DOUBLE,
        "c": t.Struct((t.Field("x", t.TEXT),)),
    }
    assert inferred(*texts, default="string", named=(("/a", "rescue"),))["a"] == t.STRING


def test_a_policy_holds_for_what_lies_below() -> None:
    policies = FieldPolicies((("/a", "json"), ("/a/b/c", "fail"), ("/l/*/x", "fail")), "string")
    assert policies.mode("/a/b") == "json"
    assert policies.governing("/a/b") == ("/a", "json")
    assert policies.governing("/a/b/c/d") == ("/a/b/c", "fail")
    assert policies.governing("/ab") == ("/ab", "string")
    assert policies.mode("/l") == "fail"
    assert policies.wanted_type("/a/b") == t.JSON
    assert policies.wanted_type("/z") == t.TEXT
    assert policies.wanted_type("/l") is None
    assert policies.named_type("/a/b") is None


def test_the_first_conflict_of_a_field_that_must_have_none_is_a_failure() -> None:
    policies = FieldPolicies((("/s/a", "fail"),))
    schema = known(a=t.LONG, s=t.Struct((t.Field("a", t.LONG), t.Field("b", t.LONG))))
    result = decoded(
        '{"a": "x","s": {"a": 1,"b": "x"}}', '{"s": {"b": "x","a": "x"}}', '{"s": {"a": null}}',
        schema=schema, policies=policies,
    )  # fmt: skip
    assert result.failures == {1: "/s/a"}
    assert decoded('{"s": {"a": "x"}}', schema=schema).failures == {}


def test_failures_are_found_in_every_way_of_decoding() -> None:
    """Among many documents that fit, cut out of the others, and in a first batch."""
    policies = FieldPolicies(default="fail")
    texts = [f'{{"a": {i},"j": [1,"x"]}}' for i in range(3000)]
    texts[2500] = '{"a": "x","j": 1}'
    first = decoded(*texts, policies=policies)
    assert first.failures == {2500: "/a"}
    assert decoded(*texts, schema=first.schema, policies=policies).failures == {2500: "/a"}
    assert decoded(*texts, schema=known(a=t.LONG, j=t.JSON), policies=policies).failures == {2500: "/a"}
