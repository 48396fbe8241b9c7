"""How pipelines and operations look in answers: `models.pipeline.Pipeline`, as JSON values.

Made by hand and not by the model: a list of 200 would check 200 specs again that were checked when they came.
"""

from collections.abc import Sequence
from typing import Any

from control_plane.models.operation import Operation
from control_plane.models.pipeline import PipelineConfig, PipelineRecord, State


def pipeline_view(record: PipelineRecord, state: State, notices: Sequence[str] = ()) -> dict[str, Any]:
    """The members of a `Pipeline`."""
    return {
        "name": record.name,
        "version": record.version,
        "rules_version": record.rules_version,
        # Postgres keeps no order of members; people expect theirs.
        "spec": {name: record.spec[name] for name in PipelineConfig.model_fields if name in record.spec},
        "status": {
            "state": state,
            "desired": record.desired,
            "since": record.desired_since,
            "observed_at": record.observed_at,
            "conditions": [each.model_dump() for each in record.conditions],
            "operations": [operation_view(each) for each in record.operations],
        },
        "created_at": record.created_at,
        "created_by": record.created_by,
        "updated_at": record.updated_at,
        "updated_by": record.updated_by,
        "notices": list(notices),
    }


def operation_view(operation: Operation) -> dict[str, Any]:
    """The members of an `Operation`."""
    return operation.model_dump()
