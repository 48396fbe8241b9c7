"""When a column is to be promoted, and to what."""

from collections import Counter

import pytest

from cdc_shared.documents import DocumentSchema, Field, FieldPolicies
from cdc_shared.documents import types as t
from cdc_shared.documents.kinds import NAME_CLASH, TOO_MANY_MEMBERS
from cdc_shared.models.data_quality import EvolutionSpec, PromotionSpec
from delta_writer.transformers.type_resolver import Promotion, TypeResolver, type_at

pytestmark = pytest.mark.unit

NONE = FieldPolicies()

TABLE = DocumentSchema(
    (
        Field("n", t.LONG),
        Field("d", t.DOUBLE),
        Field("s", t.STRING),
        Field("when", t.DATE),
        Field("money", t.Decimal(10)),
        Field("list", t.List(t.LONG)),
        Field("o", t.Struct((Field("x", t.LONG), Field("p", t.Struct((Field("y", t.LONG),)))))),
    )
)


def resolver(after: int = 10, policies: FieldPolicies = NONE, **promotion: bool) -> TypeResolver:
    return TypeResolver(policies, PromotionSpec(after_conflicts=after, **promotion))


def found(pointer: str, *kinds: str, policies: FieldPolicies = NONE) -> t.FieldType | None:
    counted = resolver(10, policies)
    counted.count(TABLE, {pointer: Counter(dict.fromkeys(kinds, 10))})
    promotions = counted.promotions(TABLE)
    return promotions[0].to_type if promotions else None


@pytest.mark.parametrize(
    ("pointer", "kinds", "to"),
    [
        ("/n", ["double"], t.DOUBLE),
        ("/n", ["double", "string"], t.JSON),
        ("/d", ["long"], t.Number()),
        ("/d", ["long", "double"], t.Number()),
        ("/s", ["long"], t.JSON),
        ("/list", ["array"], t.JSON),
        ("/o", ["string"], t.JSON),
        ("/o", [TOO_MANY_MEMBERS], t.JSON),
        ("/o", [NAME_CLASH], None),
        ("/o/p/y", ["double"], t.DOUBLE),
        ("/when", ["date"], None),  # no timestamp column holds the year 10000
        ("/when", ["string"], t.JSON),
        ("/money", ["decimal"], None),
        ("/unknown", ["string"], None),
        ("", [TOO_MANY_MEMBERS], None),
    ],
)
def test_the_type_follows_from_the_kinds_that_did_not_fit(pointer, kinds, to):
    assert found(pointer, *kinds) == to


def test_a_policy_says_which_type_it_is():
    evolution = EvolutionSpec.model_validate(
        {
            "conflict_resolution_mode": "json",
            "fields": [{"path": "/n", "conflict_resolution_mode": "string"}],
        }
    )
    policies = FieldPolicies.of(evolution, "things")
    assert found("/n", "double", policies=policies) == t.TEXT
    assert found("/d", "long", policies=policies) == t.JSON
    assert found("/when", "date", policies=policies) is None


def test_a_field_is_promoted_once_enough_values_did_not_fit_it():
    counted = resolver(after=100)
    for batch in range(9):
        counted.count(TABLE, {"/n": Counter(double=11), "/d": Counter(long=1)})
        assert counted.promotions(TABLE) == [], batch
    counted.count(TABLE, {"/n": Counter(double=1)})
    assert counted.promotions(TABLE) == [Promotion("/n", t.LONG, t.DOUBLE)]


def test_values_of_the_columns_own_kind_do_not_count():
    counted = resolver(after=10)
    counted.count(TABLE, {"/when": Counter(date=1_000_000, string=9)})
    assert counted.promotions(TABLE) == []


def test_what_did_not_fit_before_a_promotion_does_not_count_after_it():
    counted = resolver(after=10)
    counted.count(TABLE, {"/n": Counter(double=10)})
    promoted = DocumentSchema((Field("n", t.DOUBLE),))
    assert counted.promotions(promoted) == []
    counted.count(promoted, {"/n": Counter(string=9)})
    assert counted.promotions(promoted) == []
    counted.count(promoted, {"/n": Counter(string=1)})
    assert counted.promotions(promoted) == [Promotion("/n", t.DOUBLE, t.JSON)]


def test_a_struct_that_gets_further_members_keeps_its_count():
    counted = resolver(after=10)
    counted.count(TABLE, {"/o": Counter(string=9)})
    wider = DocumentSchema((Field("o", t.Struct((Field("x", t.LONG), Field("new", t.LONG)))),))
    counted.count(wider, {"/o": Counter(string=1)})
    assert [each.pointer for each in counted.promotions(wider)] == ["/o"]


def test_what_lies_below_a_promoted_field_is_not_promoted_by_itself():
    counted = resolver(after=1)
    counted.count(TABLE, {"/o/x": Counter(double=5), "/o": Counter(string=5), "/o/p/y": Counter(double=5)})
    assert [each.pointer for each in counted.promotions(TABLE)] == ["/o"]


def test_promotion_may_be_switched_off():
    counted = resolver(after=1, enabled=False)
    counted.count(TABLE, {"/n": Counter(double=5)})
    assert counted.promotions(TABLE) == []


def test_a_pointer_leads_through_structs():
    assert type_at(TABLE, "/o/p/y") == t.LONG
    assert type_at(TABLE, "/o/p/z") is None
    assert type_at(TABLE, "/n/x") is None
