"""What the control plane and the reconciliation service say to each other about jobs, through Postgres."""

from enum import StrEnum
from typing import Annotated, Final, Literal

from pydantic import Field, StrictBool, StrictFloat, StrictInt, StringConstraints

from cdc_shared.models.common import CollectionName
from cdc_shared.models.spec_model import SpecModel
from cdc_shared.security.references import REFERENCE_PATTERN

CHANNEL: Final = "reconciliation"
"""Postgres NOTIFY channel: its payload is the id of the job, repair or schedule that somebody changed."""


class Mode(StrEnum):
    """What a job compares."""

    FULL = "full"
    """Every document with its row, value by value."""
    INCREMENTAL = "incremental"
    """The keys that changed since the last verification, and a rotating share of the others."""
    COUNTS = "counts"
    """Only how many there are."""
    KEYS = "keys"
    """Which documents have a row and which rows a document; not what is in them."""


class JobState(StrEnum):
    """Where a job, or its run of one collection, stands."""

    QUEUED = "queued"
    RUNNING = "running"
    PAUSED = "paused"
    COMPLETED = "completed"
    """It came to its end, whatever it found: see `Outcome`."""
    FAILED = "failed"
    """It could not be brought to its end; `error` says why. What it found until then is not a verdict."""
    CANCELLED = "cancelled"
    SKIPPED = "skipped"
    """Another run of the collection was under way, and the schedule says `skip`."""


FINISHED: Final = frozenset({JobState.COMPLETED, JobState.FAILED, JobState.CANCELLED, JobState.SKIPPED})


class Outcome(StrEnum):
    """What a completed run says of its collection."""

    EQUAL = "equal"
    """The table is right through `verified_through`; what is explained (filtered, rejected, …) may still be counted."""
    DIFFERENCES = "differences"
    """At least one difference was confirmed."""
    UNDECIDED = "undecided"
    """Nothing wrong was confirmed, but some keys could not be settled, or mode `counts` cannot tell."""


class DifferenceKind(StrEnum):
    """What is wrong with a key, or why it only seems so."""

    MISSING = "missing"
    """The source has the document, the table has no row."""
    EXTRA = "extra"
    """The table has a row, the source no document."""
    DUPLICATED = "duplicated"
    """The table has several rows of the key."""
    DIFFERENT = "different"
    """The row does not hold what the document says: `fields` tells where."""
    DECODER = "decoder"
    """Row and document agree as the platform's decoder reads them, but not as an independent one does."""

    DEAD_LETTERED = "dead_lettered"
    """A change of the document is among the dead letters: replay it."""
    REJECTED = "rejected"
    """A validation rule rejects the document; its row is an older valid one, or there is none."""
    FILTERED = "filtered"
    """The document does not match the pipeline's filter, and has no row."""
    LAGGING = "lagging"
    """The writer has not come as far yet, or the key changes faster than it can be compared."""


WRONG: Final = frozenset(
    {
        DifferenceKind.MISSING,
        DifferenceKind.EXTRA,
        DifferenceKind.DUPLICATED,
        DifferenceKind.DIFFERENT,
        DifferenceKind.DECODER,
        DifferenceKind.DEAD_LETTERED,
    }
)
"""Kinds that make the outcome `differences`. The others are as the pipeline's spec wants them, or not settled yet."""


class RepairState(StrEnum):
    """Where a repair stands: proposed → approved → applying → verifying → done | failed; or rejected."""

    PROPOSED = "proposed"
    APPROVED = "approved"
    APPLYING = "applying"
    VERIFYING = "verifying"
    DONE = "done"
    FAILED = "failed"
    REJECTED = "rejected"


class Overlap(StrEnum):
    """What a schedule does when a run of the same collection is under way."""

    SKIP = "skip"
    QUEUE = "queue"
    WARN = "warn"
    """Wait in the queue as well, and say so in the job's `warning` and to the schedule's channels."""


class MissedRun(StrEnum):
    """What a schedule does about times at which the service was away."""

    SKIP = "skip"
    ONCE = "once"
    """One run for however many were missed."""


Address = Annotated[str, StringConstraints(pattern=r"^[^@\s<>,;:]+@[^@\s<>,;:]+$", max_length=254)]


class EmailChannel(SpecModel):
    kind: Literal["email"] = "email"
    to: Annotated[tuple[Address, ...], Field(min_length=1, max_length=50)]


class SlackChannel(SpecModel):
    kind: Literal["slack"] = "slack"
    url: Annotated[str, StringConstraints(pattern=REFERENCE_PATTERN)]
    """A reference to the incoming webhook's URL, which is a secret."""


class WebhookChannel(SpecModel):
    kind: Literal["webhook"] = "webhook"
    url: Annotated[str, StringConstraints(pattern=REFERENCE_PATTERN)]


Channel = Annotated[EmailChannel | SlackChannel | WebhookChannel, Field(discriminator="kind")]


class Notifications(SpecModel):
    """Who is told of a job's end."""

    channels: Annotated[tuple[Channel, ...], Field(max_length=10)] = ()
    on: Literal["changed", "differences", "always"] = "changed"
    """`changed`: only when a collection's outcome or its numbers of differences are not what the last run of the same
    mode found, and when a job fails."""


class JobOptions(SpecModel):
    """How a job is worked. Defaults do no harm to a busy source."""

    documents_per_s: StrictInt | None = Field(default=None, ge=1)
    """Cap on reading the source, for each collection; None is no cap. The source's latency throttles as well."""
    max_differences: StrictInt = Field(default=100_000, ge=1, le=10_000_000)
    """So many keys are looked into; of more, only the number is told."""
    settle_timeout_s: StrictFloat = Field(default=300.0, ge=1, le=86_400)
    """How long a difference may wait for the writer to come as far, before it is `lagging`."""
    sample_share: StrictFloat = Field(default=0.002, ge=0, le=1)
    """Of the documents that are also compared through an independent decoder; at least 1,000 of a collection."""
    rotating_share: StrictFloat = Field(default=0.05, ge=0, le=1)
    """Mode `incremental`: the share of all keys that is compared beside those that changed, another one each time."""
    max_lag_s: StrictFloat = Field(default=600.0, ge=1)
    """The run waits while the writer is further behind than this: it would only make it worse."""
    repair: StrictBool = False
    """Propose a repair of what is found; somebody with the permission must still approve it."""


Cron = Annotated[str, StringConstraints(max_length=100)]
"""Five fields: minute hour day-of-month month day-of-week, as in crontab(5)."""
Collections = Annotated[tuple[CollectionName, ...], Field(min_length=1, max_length=1000)]


class ScheduleConfig(SpecModel):
    """A schedule as people write it."""

    collections: Collections | None = None
    """None is every collection that the pipeline has a table for when the time comes."""
    mode: Mode = Mode.INCREMENTAL
    cron: Cron
    time_zone: Annotated[str, StringConstraints(min_length=1, max_length=64)] = "UTC"
    """An IANA name, as Europe/Berlin."""
    overlap: Overlap = Overlap.SKIP
    missed: MissedRun = MissedRun.ONCE
    enabled: StrictBool = True
    options: JobOptions = JobOptions()
    notifications: Notifications = Notifications()
