"""What another spec means for a pipeline that was started: what cannot change, and what has to be read anew."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

from cdc_shared.kafka.publication import check_keys, notices_of
from cdc_shared.models.common import PipelineSpec, SourceSpec
from control_plane.problems import Problem

SNAPSHOTLESS_MODE: Final = "no_data"
"""Of `source.snapshot_mode`: what was there before the first start is not wanted."""

_FIXED: Final[Mapping[str, Callable[[PipelineSpec], Any]]] = MappingProxyType(
    {
        "source.database": lambda spec: spec.source.database,
        "sink.root": lambda spec: spec.sink.root,
        "sink.mode": lambda spec: spec.sink.mode,
        "topic_partitions": lambda spec: spec.topic_partitions,
    }
)
"""What the tables and topics rest on."""


@dataclass(frozen=True, slots=True)
class NewlyCaptured:
    """Collections that a spec captures and the one before did not; `named` empty: nobody knows which."""

    named: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Consequences:
    """What a change brings with it."""

    resync: NewlyCaptured | None
    """Debezium's first snapshot is over: documents of these would come only once they change."""
    notices: tuple[str, ...]


def check_change(before: PipelineSpec, after: PipelineSpec) -> None:
    """Raises `Problem` 409 for what is fixed from the first start on, `InvalidSpec` for rules that move rows' keys."""
    for field, value in _FIXED.items():
        if value(before) != value(after):
            raise Problem(
                409,
                "fixed_field",
                f"{field} cannot change once the pipeline was started: stop it, reset it with keep_tables false, which "
                "drops its tables and topics, then change it",
                members={"field": field},
            )
    check_keys(before.quality, after)


def consequences(before: PipelineSpec, after: PipelineSpec) -> Consequences:
    """What to do, and what to tell people, when a pipeline with tables gets another spec."""
    notices = list(notices_of(before.quality, after))
    if before.source.connection != after.source.connection:
        notices.append(
            "source.connection is another secret: the connector goes on from its position, which only the same "
            "deployment knows; if this is another one, resync the pipeline"
        )
    if before.source.snapshot_mode != after.source.snapshot_mode:
        notices.append("source.snapshot_mode counts when the connector begins anew: after a reset or a resync")
    newly = newly_captured(before.source, after.source)
    if newly is not None and after.source.snapshot_mode == SNAPSHOTLESS_MODE:
        notices.append("collections captured newly have no rows of before: source.snapshot_mode is no_data")
        newly = None
    elif newly is not None:
        what = ", ".join(newly.named) or "the whole pipeline, because every collection is captured now"
        notices.append(f"documents that are there already are read by a resync of {what}, while the pipeline runs")
    return Consequences(newly, tuple(notices))


def newly_captured(before: SourceSpec, after: SourceSpec) -> NewlyCaptured | None:
    """What `after` captures that `before` did not; None when that is nothing."""
    if after.include_collections:
        named = [name for name in after.include_collections if not before.captures(name)]
        return NewlyCaptured(tuple(named)) if named else None
    if before.include_collections:
        return NewlyCaptured(())
    named = [name for name in before.exclude_collections if after.captures(name)]
    return NewlyCaptured(tuple(named)) if named else None
