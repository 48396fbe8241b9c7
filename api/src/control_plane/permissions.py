"""Who may do what: the roles, the permissions, and the one table that grants them."""

from collections.abc import Iterable, Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Final


class Role(StrEnum):
    ADMIN = "admin"
    OPERATOR = "operator"
    ANALYST = "analyst"
    AUDITOR = "auditor"


class Permission(StrEnum):
    """Every route declares one of these."""

    PUBLIC = "public"
    """No sign-in at all."""
    SELF = "self"
    """Whoever is signed in: what concerns one's own account."""

    PIPELINES_READ = "pipelines:read"
    PIPELINES_WRITE = "pipelines:write"
    """Create, change, delete."""
    PIPELINES_OPERATE = "pipelines:operate"
    """Start, pause, resume, stop, restart, resync, reset."""
    RULES_WRITE = "rules:write"
    DEAD_LETTERS_READ = "dead-letters:read"
    """List and show, values masked."""
    DEAD_LETTERS_REVEAL = "dead-letters:reveal"
    """See them unmasked."""
    DEAD_LETTERS_REPLAY = "dead-letters:replay"
    DEAD_LETTERS_DISCARD = "dead-letters:discard"
    RECONCILIATION_READ = "reconciliation:read"
    """Jobs, what they found (documents masked as in the tables), reports, what is verified."""
    RECONCILIATION_RUN = "reconciliation:run"
    """Run, pause and cancel jobs; propose and withdraw repairs."""
    RECONCILIATION_SCHEDULE = "reconciliation:schedule"
    RECONCILIATION_APPROVE = "reconciliation:approve"
    """Have a proposed repair applied."""
    TABLES_QUERY = "tables:query"
    """Read the tables' rows by SQL, masked as they are there."""
    METRICS_READ = "metrics:read"
    AUDIT_READ = "audit:read"
    USERS_MANAGE = "users:manage"
    SERVICE_TOKENS_MANAGE = "service-tokens:manage"


OF_EVERYONE: Final = frozenset({Permission.PUBLIC, Permission.SELF})
_RIGHTS: Final = frozenset({Permission.USERS_MANAGE, Permission.SERVICE_TOKENS_MANAGE})
OF_PEOPLE: Final = _RIGHTS | {Permission.RECONCILIATION_APPROVE}
"""No service token has these: a machine gives nobody rights, and is nobody's second pair of eyes."""
GLOBAL: Final = _RIGHTS | {Permission.AUDIT_READ}
"""What cannot be limited to some pipelines."""
_READ: Final = frozenset({Permission.PIPELINES_READ, Permission.METRICS_READ, Permission.RECONCILIATION_READ})

GRANTS: Final[Mapping[Role, frozenset[Permission]]] = MappingProxyType(
    {
        Role.ADMIN: frozenset(Permission),
        Role.OPERATOR: OF_EVERYONE
        | _READ
        | {
            Permission.PIPELINES_WRITE,
            Permission.PIPELINES_OPERATE,
            Permission.RULES_WRITE,
            Permission.DEAD_LETTERS_READ,
            Permission.DEAD_LETTERS_REPLAY,
            Permission.DEAD_LETTERS_DISCARD,
            Permission.RECONCILIATION_RUN,
            Permission.RECONCILIATION_SCHEDULE,
            Permission.TABLES_QUERY,
        },
        Role.ANALYST: OF_EVERYONE | _READ | {Permission.TABLES_QUERY},
        Role.AUDITOR: OF_EVERYONE | _READ | {Permission.AUDIT_READ},
    }
)


def granted(roles: Iterable[Role]) -> frozenset[Permission]:
    """What these roles may do together."""
    return OF_EVERYONE.union(*(GRANTS[role] for role in roles))
