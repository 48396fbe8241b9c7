"""What a pipeline's tables hold plain that its rules mask now: told as findings, and masked where it is asked for.

The versions of the rules are read from `cdc.rules`, and the histories of schemas from the lake, in the background.
"""

import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Final

from cdc_shared.delta.actions import AddFile, Metadata
from cdc_shared.delta.table_metadata import masked_by
from cdc_shared.errors import CdcError
from cdc_shared.logging.structured_logger import get_logger
from cdc_shared.models.data_quality import QualitySpec
from cdc_shared.storage.object_store import store_errors
from delta_writer.maintenance.remask import REMASK, Remasking, made_by, missing_masks, plain_in_table
from delta_writer.writer.delta_writer import DeltaWriter

Versions = Mapping[int, QualitySpec]

LOOK_AFTER_REFUSAL_S: Final = 60.0
"""Rows that cannot be masked may be gone by then."""

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class MaskSource:
    """What is known of a pipeline's masks.

    Attributes:
        version: collection → the version of the rules in force.
        versions: reads every version of the rules; blocks.
        secrets: as `Rules.compile` takes them.
    """

    version: Callable[[str], int]
    versions: Callable[[], Versions]
    secrets: Callable[[str], bytes]


@dataclass(frozen=True, slots=True)
class _Seen:
    """What an answer depends on."""

    rules: int
    masked: int
    asked: str


class MaskWatch:
    """Of one table, in the pipeline's thread but for what `background` runs.

    `report` takes what people should know; None when there is nothing.
    """

    def __init__(
        self,
        writer: DeltaWriter,
        pipeline: str,
        collection: str,
        masks: MaskSource,
        background: Callable[[Callable[[], None]], None],
        report: Callable[[str | None], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock = clock
        self._writer = writer
        self._pipeline = pipeline
        self._collection = collection
        self._masks = masks
        self._background = background
        self._report = report
        self._seen: _Seen | None = None
        self._versions: Versions = {}
        self._made_by: set[int] = set()
        self._answer: str | None = None
        self._looking = False
        self._is_given = False  # what the last look has found was begun to be masked
        self._refused_at: float | None = None

    def turn(self) -> None:
        """Look again where something has changed, and tell what a look has found."""
        metadata = self._writer.snapshot.metadata
        if metadata is None or self._looking:
            return
        seen = _Seen(self._masks.version(self._collection), masked_by(metadata), metadata.configuration.get(REMASK, ""))
        refused_at = self._refused_at
        if seen == self._seen and (refused_at is None or self._clock() - refused_at < LOOK_AFTER_REFUSAL_S):
            self._report(self._answer)
            return
        self._looking = True
        files = list(self._writer.snapshot.files.values())
        self._background(lambda: self._look(seen, metadata, files))

    def wanted(self, metadata: Metadata) -> Remasking | None:
        """Return the masking that the table asks for, once the rules are known; None when there is none.

        To be asked when nothing is under way: what was returned before has come to nothing then, because of rows of
        another version that were written meanwhile, or is done. The table is looked at anew first.
        """
        asked = metadata.configuration.get(REMASK, "")
        if not asked or self._looking or self._seen is None or self._seen.asked != asked:
            return None
        if self._is_given:
            self._seen = None
            return None
        target = self._versions.get(int(asked))
        if target is None:
            return None
        try:
            missing = missing_masks(self._collection, target, self._versions, self._made_by)
            remasking = Remasking(missing, self._collection, self._masks.secrets)
        except CdcError as error:
            self._refused(error)
            return None
        self._is_given = True
        return remasking

    def _refused(self, error: CdcError) -> None:
        answer = f"cannot be masked as was asked for: {error}"
        if answer != self._answer:
            log.warning("masking refused", table=self._writer.location.url, reason=str(error))
            self._refused_at = self._clock()
        self._answer = answer

    def _look(self, seen: _Seen, metadata: Metadata, files: Collection[AddFile]) -> None:
        """In the background."""
        try:
            self._versions = self._masks.versions() if seen.rules or seen.asked else {}
            with store_errors(f"reading {self._writer.location.url}"):
                self._made_by = made_by(self._writer.location.store, files) if self._versions else set()
                self._answer = self._plain(seen, metadata)
            self._seen = seen
            self._is_given, self._refused_at = False, None
        except CdcError as error:
            log.warning("cannot tell yet what is plain", table=self._writer.location.url, reason=str(error))
        finally:
            self._looking = False

    def _plain(self, seen: _Seen, metadata: Metadata) -> str | None:
        target = self._versions.get(seen.rules)
        if target is None:
            return None
        store = self._writer.location.store
        fields = plain_in_table(store, metadata, self._collection, target, self._versions, self._made_by)
        if not fields:
            return None
        return (
            f"plain values of {', '.join(fields)} remain in rows or older versions of {self._writer.location.url}, "
            f"from before version {seen.rules} of the rules: run `delta-writer remask {self._pipeline} --collection "
            f"{self._collection}`, which masks the rows and deletes all older versions"
        )
