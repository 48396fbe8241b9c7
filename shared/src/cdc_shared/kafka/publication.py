"""Publishing a pipeline: its rules are checked and counted, kept under their version, and then its spec goes out.

So whatever version a writer stamps on a row can be looked up from the moment that the writer knows of it.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import get_args

from cdc_shared.kafka.rules_topic import RULES_TOPIC, first_rules, read_versions, store_rules
from cdc_shared.kafka.spec_topic import UnknownPipeline, publish_spec, read_spec
from cdc_shared.kafka.topics import PIPELINES_TOPIC
from cdc_shared.models.common import InvalidSpec, PipelineSpec
from cdc_shared.models.data_quality import Filter, Hash, MaskRule, QualitySpec
from cdc_shared.rules.compiled import check_rules

KEY_PATH = "/_id"


@dataclass(frozen=True, slots=True)
class Publication:
    """What was published: `spec` with the version of its rules, and what people should know of the change."""

    spec: PipelineSpec
    notices: tuple[str, ...] = ()


def publish(
    bootstrap_servers: str,
    spec: PipelineSpec,
    topic: str = PIPELINES_TOPIC,
    rules_topic: str = RULES_TOPIC,
    check: Callable[[], None] = lambda: None,
) -> Publication:
    """Publish a spec, new or changed. The version of its rules is counted here: it goes up when they are others than
    those published last, and 0 stands for a pipeline that never had any.

    The spec itself gives no version, or the last one, as a spec does that was read back to be changed. Returns once
    every in-sync replica has rules and spec; publishing again after a failure does no harm. `check` is called right
    before each record is sent, and keeps it back by what it raises: to find out the rest may take seconds.

    Raises:
        InvalidRules: the rules can never be applied; says which one and why.
        InvalidSpec: the spec gives another version, or would give rows that are there other keys, or somebody else has
            published other rules at the same moment. Nothing is published then.
        Transient: Kafka is away.
    """
    check_rules(spec.quality)
    versions = read_versions(bootstrap_servers, spec.name, rules_topic)
    last = versions[max(versions)] if versions else QualitySpec()
    counted = _counted(spec, last)
    is_changed = counted.quality.version != last.version
    notices: tuple[str, ...] = ()
    if is_changed and _was_published(bootstrap_servers, spec.name, last, topic):
        check_keys(last, counted)
        notices = tuple(notices_of(last, counted))
    if is_changed:
        check()
        _store(bootstrap_servers, spec.name, counted.quality, rules_topic)
    check()
    publish_spec(bootstrap_servers, counted, topic=topic)
    return Publication(counted, notices)


def check_keys(last: QualitySpec, spec: PipelineSpec) -> None:
    """Raises `InvalidSpec` when the spec's rules would give rows that were made by the `last` ones other keys."""
    if _key_rules(last.transformation) == _key_rules(spec.quality.transformation):
        return
    raise InvalidSpec(
        f"pipeline {spec.name}: a hash rule for {KEY_PATH} changes every row's key, so the rows that are there would "
        "never be found again, and each document would get a second one; leave these rules as they are, or publish "
        "the pipeline under another name, whose tables start anew"
    )


def notices_of(last: QualitySpec, spec: PipelineSpec) -> Iterable[str]:
    """What people should know when the spec's rules follow the `last` ones, of a pipeline that has rows."""
    masks = [rule for rule in spec.quality.transformation if isinstance(rule, get_args(MaskRule))]
    added = [rule for rule in masks if rule not in last.transformation]
    if added:
        fields = ", ".join(dict.fromkeys(rule.path for rule in added))
        yield (
            f"masked from the next batch on: {fields}. Rows that are in the tables already, and earlier versions of "
            f"them, keep the plain values until `delta-writer remask {spec.name}` has rewritten them; until that is "
            "done the pipeline's findings say so"
        )
    if _filters(last) != _filters(spec.quality):
        yield (
            "filters count from the next batch on: rows that are in the tables already stay as they are, and documents "
            "that match only now have none, until their collections are resynced"
        )


def _counted(spec: PipelineSpec, last: QualitySpec) -> PipelineSpec:
    quality = spec.quality
    if quality.version not in (0, last.version):
        raise InvalidSpec(
            f"pipeline {spec.name}: quality.version is {quality.version}, but the rules published last have version "
            f"{last.version}: leave it out, it is counted when the spec is published; if the spec was read back, "
            "somebody has published other rules since: read it again"
        )
    version = last.version if _are_same(quality, last) else last.version + 1
    return spec.model_copy(update={"quality": quality.model_copy(update={"version": version})})


def _are_same(rules: QualitySpec, others: QualitySpec) -> bool:
    return (rules.validation, rules.transformation) == (others.validation, others.transformation)


def _store(bootstrap_servers: str, name: str, quality: QualitySpec, topic: str) -> None:
    """Keep the rules under their version, unless another publisher has counted the same one and was first."""
    store_rules(bootstrap_servers, name, quality, topic)
    first = first_rules(bootstrap_servers, name, quality.version, topic)
    if not _are_same(first, quality):
        store_rules(bootstrap_servers, name, first, topic)
        raise InvalidSpec(
            f"pipeline {name}: somebody else has published other rules at the same moment, and they are version "
            f"{quality.version}: see what they are, and publish again"
        )


def _was_published(bootstrap_servers: str, name: str, last: QualitySpec, topic: str) -> bool:
    """Whether there may be rows that were made without the new rules."""
    if last.version:
        return True
    try:
        read_spec(bootstrap_servers, name, topic)
    except UnknownPipeline:
        return False
    except InvalidSpec:  # it ran once, under a release that knew other fields
        return True
    return True


def _filters(quality: QualitySpec) -> list[Filter]:
    return [rule for rule in quality.validation if isinstance(rule, Filter)]


def _key_rules(rules: Iterable[object]) -> list[Hash]:
    return [rule for rule in rules if isinstance(rule, Hash) and rule.path == KEY_PATH]
