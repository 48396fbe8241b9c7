"""What a preflight says of a pipeline before it runs."""

from enum import StrEnum

from pydantic import BaseModel, Field


class CheckOutcome(StrEnum):
    OK = "ok"
    WARNING = "warning"
    """The pipeline would run; something is worth knowing, or could not be found out."""
    FAILED = "failed"
    """The pipeline would not run."""
    SKIPPED = "skipped"
    """Nothing to check, or what it needs has failed."""


class CheckResult(BaseModel):
    """One check."""

    name: str
    outcome: CheckOutcome
    message: str = Field(description="in plain words, with what to do where something is to be done; never a secret")
    duration_ms: float


class PreflightReport(BaseModel):
    """All checks of one pipeline. Nothing was changed by them."""

    pipeline: str
    valid: bool = Field(description="no check has failed")
    checks: list[CheckResult]
