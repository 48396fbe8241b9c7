"""The audit trail: what was asked, by whom, and how it ended."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from control_plane.models.auth import Principal


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
