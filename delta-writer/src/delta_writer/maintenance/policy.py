"""What a pipeline's `maintenance` spec comes to, in the units that the jobs work with."""

from dataclasses import dataclass

from cdc_shared.models.common import MaintenanceSpec
from delta_writer.maintenance.checkpointer import COMMITS_A_CHECKPOINT
from delta_writer.maintenance.retention import DAY_S, Retention

MB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class MaintenancePolicy:
    """`vacuum_every_s` apart, a table is vacuumed `first_vacuum_s` after it was opened."""

    retention: Retention
    target_bytes: int
    cpu_share: float
    bytes_per_s: float
    vacuum_every_s: float = DAY_S
    first_vacuum_s: float = 600.0
    commits_a_checkpoint: int = COMMITS_A_CHECKPOINT

    @classmethod
    def of(cls, spec: MaintenanceSpec) -> "MaintenancePolicy":
        """Return the policy of a spec."""
        return cls(
            Retention(spec.retention_days * DAY_S), spec.target_file_mb * MB, spec.cpu_share, spec.max_mb_per_s * MB
        )

    @property
    def log_retention(self) -> str:
        """The value of `delta.logRetentionDuration` that says the same to other programs."""
        days, rest_s = divmod(self.retention.versions_s, DAY_S)
        return f"interval {days:.0f} days" if not rest_s else f"interval {self.retention.versions_s:.0f} seconds"
