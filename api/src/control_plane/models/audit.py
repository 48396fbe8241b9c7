"""The audit trail: what was asked, by whom, and how it ended."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Literal, Self

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, model_validator

from control_plane.models.auth import Principal
from control_plane.models.pages import MAX_CURSOR_CHARS, MAX_LIMIT


class Action(StrEnum):
    """Every route declares the one that it is."""

    UNKNOWN = "unknown"
    """A call of no route."""

    HEALTH = "system.health"
    READY = "system.ready"
    METRICS = "system.metrics"
    DOCUMENTATION = "system.documentation"

    SIGN_IN = "auth.sign_in"
    REFRESH = "auth.refresh"
    SIGN_OUT = "auth.sign_out"
    ME = "auth.me"
    CHANGE_PASSWORD = "auth.change_password"  # nosec B105

    USER_CREATE = "user.create"
    USER_LIST = "user.list"
    USER_READ = "user.read"
    USER_CHANGE = "user.change"
    USER_DISABLE = "user.disable"
    USER_ENABLE = "user.enable"
    USER_RESET_PASSWORD = "user.reset_password"  # nosec B105
    ROLE_LIST = "role.list"
    SERVICE_TOKEN_CREATE = "service_token.create"  # nosec B105
    SERVICE_TOKEN_LIST = "service_token.list"  # nosec B105
    SERVICE_TOKEN_REVOKE = "service_token.revoke"  # nosec B105

    AUDIT_LIST = "audit.list"
    AUDIT_EXPORT = "audit.export"
    AUDIT_VERIFY = "audit.verify"

    PIPELINE_CREATE = "pipeline.create"
    PIPELINE_LIST = "pipeline.list"
    PIPELINE_READ = "pipeline.read"
    PIPELINE_CHANGE = "pipeline.change"
    PIPELINE_DELETE = "pipeline.delete"
    PIPELINE_VALIDATE = "pipeline.validate"
    PIPELINE_START = "pipeline.start"
    PIPELINE_PAUSE = "pipeline.pause"
    PIPELINE_RESUME = "pipeline.resume"
    PIPELINE_STOP = "pipeline.stop"
    PIPELINE_RESTART = "pipeline.restart"
    PIPELINE_RESYNC = "pipeline.resync"
    PIPELINE_RESET = "pipeline.reset"
    PIPELINE_STATUS = "pipeline.status"
    PIPELINE_METRICS = "pipeline.metrics"
    PIPELINE_OPERATIONS = "pipeline.operations"
    METRICS_READ = "metrics.read"

    RULES_READ = "rules.read"
    RULES_CHANGE = "rules.change"
    RULES_DRY_RUN = "rules.dry_run"
    RULES_VERSIONS = "rules.versions"
    SCHEMA_HISTORY = "schema.history"
    DEAD_LETTERS_LIST = "dead_letters.list"
    DEAD_LETTERS_SHOW = "dead_letters.show"
    DEAD_LETTERS_REVEAL = "dead_letters.reveal"
    DEAD_LETTERS_REPLAY = "dead_letters.replay"
    DEAD_LETTERS_DISCARD = "dead_letters.discard"

    QUERY = "tables.query"

    RECONCILIATION_RUN = "reconciliation.run"
    RECONCILIATION_LIST = "reconciliation.list"
    RECONCILIATION_READ = "reconciliation.read"
    RECONCILIATION_CANCEL = "reconciliation.cancel"
    RECONCILIATION_PAUSE = "reconciliation.pause"
    RECONCILIATION_RESUME = "reconciliation.resume"
    RECONCILIATION_DIFFERENCES = "reconciliation.differences"
    RECONCILIATION_REPORT = "reconciliation.report"
    RECONCILIATION_VERIFICATIONS = "reconciliation.verifications"
    REPAIR_PROPOSE = "repair.propose"
    REPAIR_LIST = "repair.list"
    REPAIR_READ = "repair.read"
    REPAIR_APPROVE = "repair.approve"
    REPAIR_REJECT = "repair.reject"
    SCHEDULE_CREATE = "schedule.create"
    SCHEDULE_LIST = "schedule.list"
    SCHEDULE_READ = "schedule.read"
    SCHEDULE_CHANGE = "schedule.change"
    SCHEDULE_DELETE = "schedule.delete"


class Outcome(StrEnum):
    ALLOWED = "allowed"
    REFUSED = "refused"
    """Not signed in, not permitted, or too often: 401, 403, 429."""
    FAILED = "failed"
    """Any other status of 400 or more."""


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """One call. Never a secret, never a body's value."""

    at: datetime
    """When the call came."""
    user_id: str | None
    user: str | None
    """The name: of who was signed in, or, at a sign-in, of whoever was meant."""
    roles: tuple[str, ...]
    action: Action
    resource: str | None
    outcome: Outcome
    status: int
    code: str | None
    """Of the problem, when it was refused or failed."""
    request_id: str
    address: str | None
    duration_ms: float


@dataclass(slots=True)
class AuditDraft:
    """What is known so far of a call that is being answered: in `scope["state"]["audit"]` from its beginning."""

    at: datetime
    request_id: str
    address: str | None
    started_s: float
    """By the monotonic clock."""
    action: Action = Action.UNKNOWN
    resource: str | None = None
    principal: Principal | None = None
    user: str | None = None
    """Who was meant where nobody is signed in."""
    code: str | None = None
    stored: bool = False
    """The entry was committed with what it tells of."""

    def entry(self, status: int, now_s: float) -> AuditEntry:
        """The entry for a call that ends with this status."""
        who = self.principal
        return AuditEntry(
            at=self.at,
            user_id=str(who.id) if who else None,
            user=who.name if who else self.user,
            roles=tuple(sorted(who.roles)) if who else (),
            action=self.action,
            resource=self.resource,
            outcome=outcome_of(status),
            status=status,
            code=self.code,
            request_id=self.request_id,
            address=self.address,
            duration_ms=round((now_s - self.started_s) * 1000, 3),
        )


def outcome_of(status: int) -> Outcome:
    """How a call with this status ended."""
    if status in (401, 403, 429):
        return Outcome.REFUSED
    return Outcome.FAILED if status >= 400 else Outcome.ALLOWED


class AuditLog(BaseModel):
    """An entry, as the API tells it."""

    id: int = Field(description="its place in the chain: 1, 2, 3 …")
    at: AwareDatetime = Field(description="when the call came")
    user_id: str | None
    user: str | None = Field(description="who called, or was meant at a sign-in that failed")
    roles: list[str] = Field(description="of the user, at that time")
    action: str
    resource: str | None = Field(description="what was acted on; of a call of no route, its path")
    outcome: Outcome
    status: int = Field(description="of the answer; 499: the caller was gone before its request was whole")
    code: str | None = Field(description="of the problem, when the call was refused or failed")
    request_id: str
    address: str | None
    duration_ms: float = Field(description="until the answer began")
    hash: str = Field(description="SHA-256 over the hash before it and this entry, in hex")


class AuditQuery(BaseModel):
    """Which entries; all that is given must hold."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    user: str | None = Field(default=None, max_length=200, description="a user's or service token's name or id")
    action: Action | None = None
    resource: str | None = Field(default=None, max_length=500, description="exactly this, such as a pipeline's name")
    outcome: Outcome | None = None
    since: AwareDatetime | None = Field(default=None, alias="from", description="calls from this time on")
    until: AwareDatetime | None = Field(default=None, alias="to", description="calls before this time")

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.since and self.until and self.since >= self.until:
            raise ValueError("`from` must lie before `to`")
        return self


class AuditPageQuery(AuditQuery):
    limit: int = Field(default=50, ge=1, le=MAX_LIMIT, description="entries a page")
    cursor: str | None = Field(default=None, max_length=MAX_CURSOR_CHARS, description="`next` of the page before")


class AuditExportQuery(AuditQuery):
    format: Literal["csv", "jsonl"] = "csv"


class AuditVerification(BaseModel):
    """How far the chain was checked, and the first place where it does not hold."""

    intact: bool = Field(description="nothing that was checked is altered, removed or slipped in")
    after: int = Field(description="the check began behind this place; 0 is the beginning")
    checked: int = Field(description="entries that were checked")
    entries: int = Field(description="entries in the trail when the check began")
    hash: str = Field(description="of the newest entry, in hex: noted elsewhere, it shows a trail rewritten as a whole")
    first_broken: int | None = None
    why: str | None = None
    next: int | None = Field(default=None, description="give it as `after` to go on; null: checked to the end")
