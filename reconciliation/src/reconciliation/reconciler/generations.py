from dataclasses import dataclass
from reconciliation.reconciler.result import TopicPositions


@dataclass(frozen=True, slots=True)
class ScanWindow:
    """When the source was scanned.

    Attributes:
        before: where the change topic ended before the first chunk was read, in whatever process.
        after_ms: the source's operation time after the last chunk was read.
    """

    before: TopicPositions
    after_ms: int


class Evidence:
    """To come."""
