"""Publishing counts the rules' versions, keeps each before the spec goes out, and refuses what cannot be applied."""

from __future__ import annotations

from typing import Any

import pytest

import cdc_shared.kafka.publication as module
from cdc_shared.errors import Transient
from cdc_shared.kafka.publication import publish
from cdc_shared.kafka.spec_topic import UnknownPipeline
from cdc_shared.models.common import InvalidSpec, PipelineSpec
from cdc_shared.models.data_quality import QualitySpec
from cdc_shared.rules.rule_checks import InvalidRules

pytestmark = pytest.mark.unit

DROP = {"rule": "drop", "path": "/a"}
REDACT = {"rule": "redact", "path": "/mail"}
HASH_MAIL = {"rule": "hash", "path": "/mail", "key": "env:KEY"}
HASH_ID = {"rule": "hash", "path": "/_id", "key": "env:KEY"}


class Topics:
    """Both topics, and the order in which they were written."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.rules: dict[int, QualitySpec] = {}
        self.spec: PipelineSpec | None = None
        self.written: list[str] = []
        self.fails: Exception | None = None
        self.first: QualitySpec | None = None
        monkeypatch.setattr(module, "read_versions", lambda *_: dict(self.rules))
        monkeypatch.setattr(module, "store_rules", self._store)
        monkeypatch.setattr(module, "first_rules", lambda *_: self.first or self.rules[max(self.rules)])
        monkeypatch.setattr(module, "publish_spec", self._publish)
        monkeypatch.setattr(module, "read_spec", self._read)

    def _store(self, servers: str, pipeline: str, quality: QualitySpec, topic: str) -> None:
        assert (servers, pipeline, topic) == ("b:1", "shop", "cdc.rules")
        self.written.append("rules")
        self.rules[quality.version] = quality

    def _publish(self, servers: str, spec: PipelineSpec, topic: str) -> None:
        if self.fails is not None:
            raise self.fails
        self.written.append("spec")
        self.spec = spec

    def _read(self, *_: str) -> PipelineSpec:
        if self.spec is None:
            raise UnknownPipeline("unknown")
        return self.spec


@pytest.fixture
def topics(monkeypatch: pytest.MonkeyPatch) -> Topics:
    return Topics(monkeypatch)


def spec(*transformation: Any, **quality: Any) -> PipelineSpec:
    return PipelineSpec.model_validate(
        {
            "name": "shop",
            "source": {"connection": "env:X", "database": "d"},
            "quality": {"transformation": transformation, **quality},
        }
    )


def published(version: int, *transformation: Any, **quality: Any) -> PipelineSpec:
    return spec(*transformation, version=version, **quality)


def test_a_pipeline_without_rules_has_version_0_and_nothing_is_kept(topics: Topics) -> None:
    assert publish("b:1", spec(dirty_data={"policy": "skip"})).spec.quality.version == 0
    assert topics.written == ["spec"]


def test_the_version_goes_up_when_rules_change_and_only_then(topics: Topics) -> None:
    specs = (
        spec(DROP),
        spec(DROP),
        spec(DROP, dirty_data={"policy": "skip"}),
        spec(DROP, validation=[{"rule": "required", "path": "/a"}]),
        spec(DROP),
        spec(),
        spec(),
    )
    versions = [publish("b:1", each).spec.quality.version for each in specs]
    assert versions == [1, 1, 1, 2, 3, 4, 4]
    assert topics.spec == published(4)
    assert sorted(topics.rules) == [1, 2, 3, 4]
    assert topics.rules[1] == published(1, DROP).quality
    assert topics.rules[2].validation[0].rule == "required"


def test_rules_are_kept_before_the_spec_goes_out_and_again_does_no_harm(topics: Topics) -> None:
    topics.fails = Transient("broker away")
    with pytest.raises(Transient):
        publish("b:1", spec(DROP))
    assert topics.written == ["rules"]
    topics.fails = None
    assert publish("b:1", spec(DROP)).spec.quality.version == 1
    assert topics.written == ["rules", "spec"]


def test_a_pipeline_that_was_taken_back_counts_on(topics: Topics) -> None:
    publish("b:1", spec(DROP))
    topics.spec = None
    assert publish("b:1", spec(REDACT)).spec.quality.version == 2


def test_a_spec_that_was_read_back_is_changed_unless_somebody_was_faster(topics: Topics) -> None:
    read_back = publish("b:1", spec(DROP)).spec
    changed = read_back.model_copy(update={"quality": published(1, REDACT).quality})
    assert publish("b:1", changed).spec == published(2, REDACT)
    with pytest.raises(InvalidSpec, match=r"quality\.version is 1, .* have version 2: leave it out"):
        publish("b:1", published(1, DROP, REDACT))
    with pytest.raises(InvalidSpec, match="leave it out"):
        publish("b:1", published(3, DROP))
    assert topics.spec == published(2, REDACT)


def test_of_two_that_count_one_version_the_first_to_store_it_has_it(topics: Topics) -> None:
    publish("b:1", spec(DROP))
    theirs = topics.first = published(2, REDACT).quality
    with pytest.raises(InvalidSpec, match=r"at the same moment, and they are version 2: .*publish again"):
        publish("b:1", spec(HASH_MAIL))
    assert topics.rules[2] == theirs, "put back"
    assert topics.spec == published(1, DROP)
    publish("b:1", spec(REDACT))
    assert topics.spec == published(2, REDACT)


def test_rules_that_can_never_be_applied_are_refused_and_nothing_is_written(topics: Topics) -> None:
    quality = QualitySpec.model_validate({"validation": [{"rule": "range", "path": "/a", "min": 2, "max": 1}]})
    with pytest.raises(InvalidRules, match="validation rule 1"):
        publish("b:1", spec().model_copy(update={"quality": quality}))
    assert topics.written == []


def test_a_mask_that_is_added_says_what_stays_plain(topics: Topics) -> None:
    assert publish("b:1", spec(REDACT)).notices == (), "of a new pipeline nothing is plain"
    (notice,) = publish("b:1", spec(DROP, REDACT, {"rule": "partial", "path": "/card"})).notices
    assert "/card" in notice
    assert "/mail" not in notice
    assert "delta-writer remask shop" in notice
    assert publish("b:1", spec(DROP, REDACT)).notices == ()


def test_a_mask_on_a_pipeline_that_never_had_rules_is_no_different(topics: Topics) -> None:
    publish("b:1", spec())
    assert "/mail" in publish("b:1", spec(REDACT)).notices[0]


@pytest.mark.parametrize(
    ("before", "after"), [([], [HASH_ID]), ([HASH_ID], []), ([HASH_ID], [HASH_ID | {"key": "env:B"}])]
)
def test_rules_that_give_rows_other_keys_are_for_new_tables_only(topics: Topics, before: Any, after: Any) -> None:
    publish("b:1", spec(*before))
    with pytest.raises(InvalidSpec, match="changes every row's key"):
        publish("b:1", spec(*after))
    assert publish("b:1", spec(*before, DROP)).spec.quality.version == len(before) + 1


def test_a_filter_that_is_added_or_taken_away_says_what_it_does_not_touch(topics: Topics) -> None:
    only_europe = {"rule": "filter", "expression": "region = 'EU'"}
    assert publish("b:1", spec(validation=[only_europe])).notices == (), "of a new pipeline no row stays"
    (notice,) = publish("b:1", spec()).notices
    assert "resynced" in notice
    assert publish("b:1", spec(DROP)).notices == ()
