"""Examples for the API's description, as the models themselves read them: none is there that no longer fits."""

from typing import Any, Final

from pydantic import BaseModel

from control_plane.models.audit import AuditLog, AuditVerification
from control_plane.models.auth import Me, PasswordChange, RefreshRequest, SignInForm, Tokens
from control_plane.models.data_quality import DryRunResult, RulesVersion, RulesView, SchemaHistory
from control_plane.models.dead_letters import DiscardResult, LetterContent, LetterView, ReplayResult
from control_plane.models.monitoring import Health, PipelineHealth, PipelineMetrics, PlatformMetrics, Readiness
from control_plane.models.operation import Operation
from control_plane.models.pipeline import Pipeline, ResetRequest
from control_plane.models.query import QueryAnswer
from control_plane.models.reconciliation import Difference, Job, JobDetail, Verification
from control_plane.models.reconciliation_schedules import Schedule
from control_plane.models.repairs import Repair, RepairProposal
from control_plane.models.service_tokens import CreatedServiceToken, NewServiceToken, ServiceTokenView
from control_plane.models.users import CreatedUser, NewUser, RoleView, TemporaryPassword, UserChange, UserView
from control_plane.routers.pipeline_requests import EXAMPLE as PIPELINE_CONFIG
from control_plane.routers.reconciliation_schedules import EXAMPLES as SCHEDULE_CONFIGS

_AT: Final = "2026-03-01T09:30:00Z"
_EARLIER: Final = "2026-03-01T09:12:00Z"
_LATER: Final = "2026-05-30T09:30:00Z"
_USER_ID: Final = "6b1f8f4e-2f0b-4c1e-9a55-0d6f1a2b3c4d"
_OPERATION_ID: Final = "b7f5a3c2-6d0e-4a61-8f2b-93c1d4e5f607"
_JOB_ID: Final = "3f9d2c61-5b7e-4e0a-8d14-70c2a9be5f13"
_RUN_ID: Final = "c1a7e590-1b2c-4d3e-9f40-5a6b7c8d9e0f"
_REPAIR_ID: Final = "9e8d7c6b-5a49-4838-a716-0f1e2d3c4b5a"
_REQUEST_ID: Final = "0b6f3c1e-5d0f-4a5e-9f0c-6d2b7a81e3d4"
_HASH: Final = "9c1f0e5d3b7a2846f1d0c9b8a7968574635241f0e1d2c3b4a5968778695a4b3c"
_LETTER: Final = "shop.shop.orders:0:4711"

_TOKENS: Final = {
    "access_token": "eyJhbGciOiJFUzI1NiIsImtpZCI6IjEifQ.…",
    "expires_in": 600,
    "refresh_token": "cdcr_…",
    "must_change_password": False,
}
_USER: Final = {
    "id": _USER_ID,
    "name": "maria",
    "roles": ["analyst"],
    "permissions": ["public", "self", "pipelines:read", "metrics:read"],
    "pipelines": ["shop"],
    "disabled": False,
    "must_change_password": False,
    "created_at": _EARLIER,
    "password_changed_at": _EARLIER,
    "last_login_at": _AT,
}
_SERVICE_TOKEN: Final = {
    "id": "1d3c5b7a-9f8e-4d6c-8b7a-5f4e3d2c1b0a",
    "name": "deploy-bot",
    "prefix": "cdcs_4fQ2",
    "permissions": ["pipelines:read", "pipelines:operate"],
    "pipelines": None,
    "created_by": _USER_ID,
    "created_at": _EARLIER,
    "expires_at": _LATER,
    "last_used_at": _AT,
    "revoked_at": None,
}
_OPERATION: Final = {
    "id": _OPERATION_ID,
    "pipeline": "shop",
    "kind": "resync",
    "arguments": {"collections": ["orders"], "filter": None},
    "state": "running",
    "message": "orders: 40,000 of about 52,300 documents",
    "error": None,
    "requested_by": "maria",
    "requested_at": _EARLIER,
    "started_at": _EARLIER,
}
_STATUS: Final = {
    "state": "resyncing",
    "desired": "running",
    "since": _EARLIER,
    "observed_at": _AT,
    "conditions": [
        {
            "kind": "ConnectorRunning",
            "status": "true",
            "reason": "Running",
            "message": "the connector runs: task 0 running",
            "since": _EARLIER,
        }
    ],
    "operations": [_OPERATION],
}
_LAG: Final = {"lag_seconds": 4.3, "lag_events": 12, "watermark": "2026-03-01T09:29:56Z"}
_RATES: Final = {"events_per_s": 51.2, "rejected_per_s": 0.0, "error_rate": 0.0}
_COLLECTION: Final = {
    **_LAG,
    **_RATES,
    "database": "shop",
    "collection": "orders",
    "last_event": "2026-03-01T09:29:58Z",
    "last_commit": "2026-03-01T09:29:59Z",
    "latency_ms": 1240,
    "events": 61_204,
    "rescued": 3,
    "rejected": 0,
    "dead_letters": 0,
    "last_rejection": None,
    "last_rejection_at": None,
    "table_version": 812,
    "table_bytes": 48_113_920,
    "schema_version": 2,
}
_WRITER: Final = {
    "writer": "writer-1",
    "state": "running",
    "is_silent": False,
    "reason": None,
    "findings": [],
    "since": _EARLIER,
    "heard_at": _AT,
    "turned_at": _AT,
    "rules_version": 1,
    "retries": 0,
    "partitions": 2,
}
_METRICS: Final = {
    **_LAG,
    **_RATES,
    "pipeline": "shop",
    "observed_at": _AT,
    "rescued": 3,
    "rejected": 0,
    "dead_letters": 0,
    "table_bytes": 48_113_920,
    "oplog_window_seconds": 172_800,
    "last_error": None,
    "writers": [_WRITER],
    "collections": [_COLLECTION],
}
_SNAPSHOT: Final = {
    "state": "running",
    "started_at": _EARLIER,
    "completed_at": None,
    "documents": 40_000,
    "total": 52_300,
    "percent": 76.5,
    "documents_per_s": 350.0,
    "seconds_left": 35,
    "collections": [{"collection": "orders", "state": "reading", "documents": 40_000, "total": 52_300}],
}
_DEPENDENCY: Final = {"name": "postgres", "state": "ok", "required": True, "since": _EARLIER}
_RULES: Final = {
    "dirty_data": {"policy": "dlq"},
    "validation": [{"rule": "range", "name": "total-is-positive", "path": "/total", "min": 0}],
    "transformation": [{"rule": "redact", "path": "/card/number"}],
}
_LETTER_VIEW: Final = {
    "letter": _LETTER,
    "collection": "orders",
    "code": "validation_failed",
    "message": "/total is less than 0",
    "rule": "total-is-positive",
    "attempt": 1,
    "first_seen": _EARLIER,
    "written": _EARLIER,
    "size_bytes": 1344,
}
_JOB: Final = {
    "id": _JOB_ID,
    "pipeline": "shop",
    "collections": ["orders"],
    "mode": "full",
    "overlap": "queue",
    "options": {"documents_per_s": 5000},
    "notifications": {"channels": [], "on": "changed"},
    "state": "completed",
    "wanted": "run",
    "outcome": "differences",
    "schedule_id": None,
    "repair_id": None,
    "attempts": 1,
    "warning": None,
    "error": None,
    "requested_by": "maria",
    "requested_at": _EARLIER,
    "started_at": _EARLIER,
    "finished_at": _AT,
}
_RUN: Final = {
    "id": _RUN_ID,
    "database": "shop",
    "collection": "orders",
    "state": "completed",
    "outcome": "differences",
    "progress": {"phase": "reporting", "done": 3, "total": 3, "per_s": 120.0, "percent": 100.0, "seconds_left": 0.0},
    "summary": {
        "mode": "full",
        "documents": 61_204,
        "rows": 61_202,
        "compared": 61_205,
        "sampled": 1_041,
        "differences": {"missing": 2, "different": 1},
        "settled": 14,
        "generations": 2,
        "version": 812,
        "watermark": _EARLIER,
    },
    "has_report": True,
    "error": None,
    "started_at": _EARLIER,
    "finished_at": _AT,
}
_REPAIR_PLAN: Final = {
    "keys": 3,
    "by_kind": {"missing": 2, "different": 1},
    "not_repairable": [
        {"kind": "rejected", "keys": 7, "reason": "a rule rejects the document: correct the document or the rule"}
    ],
}
_REPAIR: Final = {
    "id": _REPAIR_ID,
    "pipeline": "shop",
    "job_id": _JOB_ID,
    "kinds": ["missing", "extra", "duplicated", "different", "dead_lettered"],
    "max_keys": 10_000,
    "plan": _REPAIR_PLAN,
    "state": "proposed",
    "proposed_by": "maria",
    "proposed_at": _AT,
    "decided_by": None,
    "decided_at": None,
    "progress": {},
    "verification_job_id": None,
    "error": None,
    "finished_at": None,
}

EXAMPLES: Final[tuple[BaseModel, ...]] = (
    QueryAnswer.model_validate(
        {
            "columns": [{"name": "status", "type": "string"}, {"name": "orders", "type": "int64"}],
            "rows": [["new", 12], ["paid", 30]],
            "row_count": 2,
            "truncated": False,
            "tables": {"shop.shop.orders": 214},
        }
    ),
    SignInForm.model_validate({"username": "admin", "password": "correct horse battery staple"}),
    RefreshRequest.model_validate({"refresh_token": "cdcr_…"}),
    PasswordChange.model_validate(
        {"current_password": "correct horse battery staple", "new_password": "a longer one with 3 numbers 271"}
    ),
    Tokens.model_validate(_TOKENS),
    Me.model_validate(
        {
            **{name: _USER[name] for name in ("id", "name", "roles", "permissions", "pipelines")},
            "kind": "user",
            "must_change_password": False,
            "at": _AT,
        }
    ),
    NewUser.model_validate({"name": "maria", "roles": ["analyst"], "pipelines": ["shop"]}),
    UserChange.model_validate({"roles": ["operator"]}),
    UserView.model_validate(_USER),
    CreatedUser.model_validate({**_USER, "last_login_at": None, "must_change_password": True, "password": "7cX2…"}),
    TemporaryPassword.model_validate({"password": "7cX2…"}),
    RoleView.model_validate({"name": "auditor", "description": "reads the audit trail", "permissions": ["audit:read"]}),
    NewServiceToken.model_validate({"name": "deploy-bot", "permissions": ["pipelines:operate"], "expires_in_days": 90}),
    ServiceTokenView.model_validate(_SERVICE_TOKEN),
    CreatedServiceToken.model_validate({**_SERVICE_TOKEN, "last_used_at": None, "token": "cdcs_4fQ2…"}),
    AuditLog.model_validate(
        {
            "id": 4711,
            "at": _AT,
            "user_id": _USER_ID,
            "user": "maria",
            "roles": ["analyst"],
            "action": "pipeline.delete",
            "resource": "shop",
            "outcome": "refused",
            "status": 403,
            "code": "not_permitted",
            "request_id": _REQUEST_ID,
            "address": "192.0.2.17",
            "duration_ms": 3.1,
            "hash": _HASH,
        }
    ),
    AuditVerification.model_validate(
        {"intact": True, "after": 0, "checked": 4711, "entries": 4711, "hash": _HASH, "next": None}
    ),
    Pipeline.model_validate(
        {
            "name": "shop",
            "version": 3,
            "rules_version": 1,
            "spec": PIPELINE_CONFIG,
            "status": _STATUS,
            "created_at": _EARLIER,
            "created_by": "maria",
            "updated_at": _EARLIER,
            "updated_by": "maria",
        }
    ),
    Operation.model_validate(_OPERATION),
    ResetRequest.model_validate({"keep_tables": True}),
    RulesView.model_validate({"rules": _RULES, "pipeline_version": 3}),
    RulesVersion.model_validate({"version": 1, "rules": _RULES}),
    DryRunResult.model_validate(
        {
            "values_shown": False,
            "read": 20,
            "rejected": 1,
            "changed": 4,
            "events": [
                {
                    "event": _LETTER,
                    "rejected": None,
                    "changed": ["/card/number"],
                    "before": {"_id": "objectId", "card": {"number": "string"}},
                    "after": {"_id": "objectId", "card": {"number": "string"}},
                }
            ],
        }
    ),
    SchemaHistory.model_validate(
        {
            "table": "s3://lake/delta/shop/shop/orders",
            "complete": True,
            "versions": [
                {
                    "version": 2,
                    "operation": "widened",
                    "at": _EARLIER,
                    "rules_version": 1,
                    "fields": [
                        {
                            "change": "added",
                            "path": "/coupon",
                            "column": "coupon",
                            "type": "string",
                            "was": None,
                            "note": None,
                            "event": _LETTER,
                        }
                    ],
                }
            ],
            "columns": {"type": "struct", "fields": []},
        }
    ),
    LetterView.model_validate(_LETTER_VIEW),
    LetterContent.model_validate(
        {
            **_LETTER_VIEW,
            "revealed": False,
            "key": {"id": "string"},
            "value": {"after": {"_id": "objectId", "total": "double"}},
        }
    ),
    ReplayResult.model_validate({"replayed": 12, "refused": 0, "reasons": {}, "examples": []}),
    DiscardResult.model_validate({"discarded": 3}),
    Job.model_validate(_JOB),
    JobDetail.model_validate({**_JOB, "runs": [_RUN]}),
    Difference.model_validate(
        {
            "run_id": _RUN_ID,
            "database": "shop",
            "collection": "orders",
            "number": 3,
            "kind": "different",
            "key": '{"$oid": "65f0c0ffee0123456789abcd"}',
            "can_be_repaired": True,
            "explanation": "the row does not hold what the document says in /total; repair it",
            "fields": [{"pointer": "/total", "how": "value"}],
            "document": '{"_id": {"$oid": "65f0c0ffee0123456789abcd"}, "total": 25.0}',
            "row": '{"_id": {"$oid": "65f0c0ffee0123456789abcd"}, "total": 24.0}',
            "rows": 1,
            "rules_version": 1,
        }
    ),
    RepairProposal.model_validate({"dry_run": False, "plan": _REPAIR_PLAN, "within_max_keys": True, "repair": _REPAIR}),
    Repair.model_validate(_REPAIR),
    Schedule.model_validate(
        {
            "id": "5d4c3b2a-1908-4f7e-8d6c-5b4a39281706",
            "pipeline": "shop",
            "version": 1,
            "config": SCHEDULE_CONFIGS[0],
            "upcoming": ["2026-03-02T01:00:00Z", "2026-03-03T01:00:00Z"],
            "last_fired_at": "2026-03-01T01:00:00Z",
            "created_at": _EARLIER,
            "created_by": "maria",
            "updated_at": _EARLIER,
            "updated_by": "maria",
        }
    ),
    Verification.model_validate(
        {
            "pipeline": "shop",
            "database": "shop",
            "collection": "orders",
            "verified_through": _EARLIER,
            "last_outcome": "equal",
            "differences": {},
            "checked_at": _AT,
            "last_job_id": _JOB_ID,
        }
    ),
    Health.model_validate({}),
    Readiness.model_validate({"status": "ready", "dependencies": [_DEPENDENCY]}),
    PlatformMetrics.model_validate(
        {
            **_RATES,
            "at": _AT,
            "lag_seconds": 4.3,
            "lag_events": 12,
            "dependencies": [{**_DEPENDENCY, "checked_at": _AT, "duration_ms": 1.6, "detail": None}],
            "object_store": {"free_bytes": 74_694_696_192, "table_bytes": 48_113_920},
            "pipelines": [{**_LAG, **_RATES, "pipeline": "shop", "observed_at": _AT, "writers": 1, "dead_letters": 0}],
        }
    ),
    PipelineMetrics.model_validate(_METRICS),
    PipelineHealth.model_validate({**_STATUS, "pipeline": "shop", "snapshot": _SNAPSHOT, "metrics": _METRICS}),
)


def add_examples(schemas: dict[str, dict[str, Any]]) -> None:
    """Give the schemas of an OpenAPI document their examples, and those of pages the example of their items."""
    items = {type(each).__name__: _dumped(each) for each in EXAMPLES}
    for name, schema in schemas.items():
        item = name.removeprefix("Page_").removesuffix("_")
        if name in items:
            schema["examples"] = [items[name]]
        elif item in items:
            schema["examples"] = [{"items": [items[item]], "next": None}]


def _dumped(example: BaseModel) -> Any:
    """As it is sent: of a request only what one would write."""
    return example.model_dump(mode="json", exclude_unset=True)
