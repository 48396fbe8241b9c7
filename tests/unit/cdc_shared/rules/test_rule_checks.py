"""Rules that make no sense are refused when they are set, by number, with the field and a remedy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ruled_documents import KEY

from cdc_shared.errors import Fatal
from cdc_shared.models.common import InvalidSpec, PipelineSpec, load_spec
from cdc_shared.models.data_quality import QualitySpec
from cdc_shared.rules.compiled import Rules, check_rules
from cdc_shared.rules.rule_checks import InvalidRules

pytestmark = pytest.mark.unit

HASH = {"rule": "hash", "key": "env:K"}
DROP_A = {"rule": "drop", "path": "/a"}
REDACT = {"rule": "redact"}


def quality(*rules: dict[str, Any]) -> QualitySpec:
    return QualitySpec.model_validate({"transformation": list(rules)})


REFUSED: list[tuple[list[dict[str, Any]], str]] = [
    ([REDACT | {"path": "/_id"}], "rule 1 (redact /_id): path /_id: _id is the row's identity"),
    ([HASH | {"path": "/_id/x"}], "not changed in part; hash /_id as a whole"),
    ([{"rule": "rename", "path": "/_id", "to": "id"}], "only hash"),
    ([{"rule": "drop", "path": "/_id"}], "only hash"),
    ([{"rule": "exclude", "paths": ["/a", "/_id"]}], "only hash"),
    ([{"rule": "rename", "path": "/a", "to": "_id"}], "to: _id is the row's identity"),
    ([{"rule": "rename", "path": "/a", "to": "_CDC_key"}], "columns that begin with _cdc_"),
    ([{"rule": "rename", "path": "/a", "to": "a"}], "is the name that the field has"),
    ([{"rule": "rename", "path": "/o/a", "to": "$oid"}], "Extended JSON"),
    ([{"rule": "rename", "path": "/a", "to": "*"}], "cannot be named"),
    ([{"rule": "constant", "path": "/_cdc_offset", "value": 1}], "columns that begin with _cdc_"),
    ([{"rule": "constant", "path": "/a", "value": float("inf")}], "no finite number"),
    ([{"rule": "constant", "path": "/a", "value": 2**63}], "more than 64 bits"),
    ([{"rule": "flatten", "path": "/_cdc"}], "could become _id or _cdc_"),
    ([{"rule": "flatten", "path": "/", "separator": "_"}], "could become _id or _cdc_"),
    ([{"rule": "drop", "path": "/l/*"}], "elements of an array have no name"),
    ([{"rule": "include", "paths": ["/l/*"]}], "elements of an array have no name"),
    ([REDACT | {"path": "/*/a"}], "a document is no array"),
    ([{"rule": "include", "paths": ["/a", "/a"]}], "given twice"),
    ([DROP_A, DROP_A], "rule 2 (drop /a): rule 1 does the same already"),
    ([DROP_A, REDACT | {"path": "/a/b"}], "rule 2 (redact /a/b): rule 1 (drop) leaves the field out"),
    ([{"rule": "exclude", "paths": ["/a"]}, REDACT | {"path": "/a"}], "rule 1 (exclude) leaves the field out"),
    ([{"rule": "include", "paths": ["/a"]}, REDACT | {"path": "/b"}], "rule 1 (include) does not keep the field"),
    ([{"rule": "rename", "path": "/a", "to": "b"}, REDACT | {"path": "/a"}], "gives the field another name"),
    ([{"rule": "flatten", "path": "/o"}, REDACT | {"path": "/o/a"}], "has moved the field"),
    ([REDACT | {"path": "/b"}, {"rule": "rename", "path": "/a", "to": "b"}], "brings other values to /b, which rule 1"),
    ([REDACT | {"path": "/b/c"}, {"rule": "rename", "path": "/a", "to": "b"}], "brings other values to /b/c"),
    ([REDACT | {"path": "/o_zip"}, {"rule": "flatten", "path": "/o"}], "brings other values to /o_zip"),
    ([REDACT | {"path": "/a"}, HASH | {"path": "/a"}], "rule 1 (redact) has masked the field"),
    ([REDACT | {"path": "/a"}, HASH | {"path": "/a/*/b"}], "rule 1 (redact) has masked the field"),
    ([{"rule": "convert", "path": "/a", "to": "json"}, REDACT | {"path": "/a/b"}], "leaves a value without fields"),
    ([{"rule": "constant", "path": "/k", "value": 1}, {"rule": "constant", "path": "/k", "value": 2}], "does the same"),
]


@pytest.mark.parametrize(("rules", "reason"), REFUSED, ids=[reason for _, reason in REFUSED])
def test_refused(rules: list[dict[str, Any]], reason: str) -> None:
    with pytest.raises(InvalidRules) as refused:
        check_rules(quality(*rules))
    assert reason in str(refused.value)
    assert str(refused.value).startswith(f"quality.transformation rule {len(rules)} (")


ACCEPTED: list[list[dict[str, Any]]] = [
    [HASH | {"path": "/_id"}],
    [{"rule": "include", "paths": ["/_id", "/a", "/o/b"]}, REDACT | {"path": "/o/b"}],
    [{"rule": "rename", "path": "/a", "to": "b"}, REDACT | {"path": "/b"}],
    [{"rule": "rename", "path": "/a", "to": "b"}, {"rule": "rename", "path": "/c", "to": "a"}, REDACT | {"path": "/a"}],
    [{"rule": "flatten", "path": "/o"}, REDACT | {"path": "/o_zip"}],
    [REDACT | {"path": "/o/a"}, REDACT | {"path": "/o"}],
    [REDACT | {"path": "/b"}, REDACT | {"path": "/a"}, {"rule": "rename", "path": "/a", "to": "b"}],
    [REDACT | {"path": "/b/c"}, REDACT | {"path": "/a/c"}, {"rule": "rename", "path": "/a", "to": "b"}],
    [REDACT | {"path": "/o_x_y"}, REDACT | {"path": "/o/x/y"}, {"rule": "flatten", "path": "/o"}],
    [REDACT | {"path": "/b"}, {"rule": "rename", "path": "/b", "to": "c"}],
    [{"rule": "truncate_date", "path": "/d", "to": "day"}, {"rule": "convert", "path": "/d", "to": "string"}],
    [DROP_A, {"rule": "constant", "path": "/a", "value": 1}],
    [{"rule": "convert", "path": "/l/*", "to": "string"}, REDACT | {"path": "/l/*"}],
    [DROP_A | {"collections": ["one"]}, REDACT | {"path": "/a", "collections": ["other"]}],
]


@pytest.mark.parametrize("rules", ACCEPTED, ids=str)
def test_accepted(rules: list[dict[str, Any]]) -> None:
    check_rules(quality(*rules))


def test_rules_of_collections_that_meet_are_held_against_each_other() -> None:
    with pytest.raises(InvalidRules, match="leaves the field out"):
        check_rules(quality(DROP_A, REDACT | {"path": "/a", "collections": ["other"]}))


def test_a_spec_with_bad_rules_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "pipeline.yaml"
    file.write_text(
        "name: shop\nsource: {connection: 'env:URI', database: shop}\n"
        "quality:\n  transformation:\n    - {rule: drop, path: /a}\n    - {rule: redact, path: /a/b}\n"
    )
    with pytest.raises(
        InvalidSpec, match=r"pipeline\.yaml: .*rule 2 \(redact /a/b\): rule 1 \(drop\) leaves the field out"
    ):
        load_spec(file)
    file.write_text(file.read_text().replace("/a/b", "/b"))
    assert isinstance(load_spec(file), PipelineSpec)


# --- keys -------------------------------------------------------------------------------------------------------------


def test_short_keys_are_refused_without_showing_them() -> None:
    with pytest.raises(InvalidRules) as refused:
        Rules.compile(quality(DROP_A, HASH | {"path": "/b"}), "any", lambda _: b"fifteen bytes !")
    assert "rule 2 (hash /b): key: env:K has fewer than 16 bytes" in str(refused.value)
    assert "fifteen" not in str(refused.value)
    Rules.compile(quality(HASH | {"path": "/b"}), "any", lambda _: b"sixteen bytes !!")


def test_a_key_that_cannot_be_had_names_its_rule() -> None:
    def missing(reference: str) -> bytes:
        raise Fatal(f"no secret {reference}")

    with pytest.raises(InvalidRules, match=r"rule 1 \(hash /b\): key: no secret env:K"):
        Rules.compile(quality(HASH | {"path": "/b"}), "any", missing)


def test_keys_of_other_collections_are_not_asked_for() -> None:
    asked: list[str] = []

    def secrets(reference: str) -> bytes:
        asked.append(reference)
        return KEY

    Rules.compile(quality(HASH | {"path": "/b", "collections": ["other"]}), "any", secrets)
    assert asked == []
