"""Schedules of reconciliation: what is compared by itself, and when."""

from datetime import datetime
from typing import Final
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from cdc_shared.models.reconciliation import ScheduleConfig

UPCOMING: Final = 5


class Schedule(BaseModel):
    """A schedule, as the API gives it."""

    model_config = ConfigDict(frozen=True)

    id: UUID
    pipeline: str
    version: int = Field(description="counts changes of the config")
    config: ScheduleConfig
    upcoming: list[datetime] = Field(
        default=[], description=f"the next {UPCOMING} times at which it is due; none while it is disabled"
    )
    last_fired_at: datetime | None
    created_at: datetime
    created_by: str
    updated_at: datetime
    updated_by: str

    @property
    def etag(self) -> str:
        """Names this state of the config, quoted as HTTP wants it."""
        return f'"{self.id.hex[:12]}-{self.version}"'
