"""Postgres's advisory locks, all in one place: two of one number would wait for each other."""

from enum import IntEnum, unique


@unique
class AdvisoryLock(IntEnum):
    MIGRATIONS = 0x6364_6301
    """Whoever brings the schema forward."""
    ADMINS = 0x6364_6302
    """Whoever takes an admin away or makes the first one."""
    CONTROLLER = 0x6364_6303
    """The one process that drives pipelines, for as long as it does."""
