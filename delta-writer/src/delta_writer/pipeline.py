"""One pipeline, from Kafka bytes to Delta commits.

    Kafka ── event_consumer ──> batch_processor ──> event_handler ──> _BatchInHand ──> delta_writer ──> Delta commit
             (where to read:     (closes batches)    (envelopes)       (documents →     (rows + vectors + offsets,
              the table says)                             ^             Arrow rows)      one fenced log entry)
                                                          │                  │
          documents that were asked for again ── rereader ┘                  └─> dlq_writer (rejected records)

    documents ──> oversized ──> decode_events ──> validated ──> transformed ──> SchemaManager.fit ──> encode_batch
                  (dirty data)  (columns in the    (rules)       (rules, masks)  (the table's columns  (the last event
                                source's schema)                                 or _cdc_rescued)      of each key)

What is rejected on the way leaves its row as its last valid change did, or deletes it. Rules may be replaced while the
pipeline runs; a batch is made by one version of them.

A pipeline that keeps a history encodes and commits each batch twice: every event to the history, then the last of each
key to the table of the current state. Reading begins at the lower of the two, and each leaves out what it has.

Between batches, `upkeep` looks after the tables: it rewrites small files, deletes what nobody needs, sweeps.

Nothing is remembered outside the table: whatever happens between two commits, reading begins again where the table
stands. Errors decide by their kind: `Transient` is waited out with the partitions paused, `InvalidEvent`s are dead
letters, `Fatal` ends the pipeline.
"""

import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import Final, TypeVar

from cdc_shared.dead_letters.rejection import ReasonCode, Rejection
from cdc_shared.delta.offsets import Fenced, StaleRules
from cdc_shared.delta.table_metadata import check_masks
from cdc_shared.errors import Fatal, Transient
from cdc_shared.logging.structured_logger import get_logger
from cdc_shared.models.data_quality import OnFailure
from cdc_shared.retry import RetryInterrupted, retrying
from cdc_shared.tracing.otel_config import Tracing
from delta_writer.consumer.event_consumer import EventConsumer, HeldOffsets, OnAssigned, OnRevoked
from delta_writer.consumer.event_handler import ReadEvents, dead_letter, read_events
from delta_writer.pipeline_observer import PipelineObserver
from delta_writer.quality_in_force import DocumentQuality, QualityInForce
from delta_writer.source.rereader import Rereader
from delta_writer.transformers.bson_to_delta import DecodedEvents, decode_events, encode_batch
from delta_writer.transformers.transformation_engine import transformed
from delta_writer.upkeep import Upkeep
from delta_writer.validators.dirty_data_detector import oversized
from delta_writer.validators.validation_engine import validated
from delta_writer.writer.batch_processor import BatchProcessor, RecordBatch
from delta_writer.writer.delta_writer import CommitResult, SchemaMoved
from delta_writer.writer.dlq_writer import DeadLetterWriter
from delta_writer.writer.sink import Sink
from delta_writer.writer.tables import Table, Tables

POLL_S: Final = 0.1
STALE_RULES_WAIT_S: Final = 1.0
"""Before a batch is read again whose table has the masks of rules not yet in force here; other tables go on between."""
T = TypeVar("T")

log = get_logger(__name__)


class Pipeline:
    """Runs in one thread. `stop` may be set from any thread; the batches in hand are then finished."""

    def __init__(
        self,
        open_consumer: Callable[[OnAssigned, OnRevoked], EventConsumer],
        open_tables: Callable[[], Tables],
        new_batches: Callable[[], BatchProcessor],
        quality: QualityInForce,
        dead_letters: DeadLetterWriter,
        rereader: Rereader,
        upkeep: Upkeep,
        observer: PipelineObserver,
        tracing: Tracing,
        stop: threading.Event,
    ) -> None:
        self._open_consumer = open_consumer
        self._open_tables = open_tables
        self._new_batches = new_batches
        self._quality = quality
        self._dead_letters = dead_letters
        self._rereader = rereader
        self._upkeep = upkeep
        self._observer = observer
        self._tracing = tracing
        self._stop = stop

    def run(self) -> None:
        """Apply changes until `stop` is set. Raises `Fatal` when going on would lose, double or overwrite data."""
        try:
            while not self._stop.is_set():
                retrying(self._run_from_tables, self._observer.retried("pipeline"), self._stop)
        except RetryInterrupted:
            log.info("stopped while Kafka or the store was away; reading begins again where the tables stand")
        finally:
            self._upkeep.close()

    def _run_from_tables(self) -> None:
        """Join the group, read from where the tables stand, and apply batches until stopped.

        Raises `Transient` only when nothing was committed since: then the next attempt waits longer.
        """
        self._has_committed = False
        try:
            self._read_and_apply()
        except Transient as error:
            if isinstance(error, RetryInterrupted) or not self._has_committed:
                raise
            log.warning("reading begins again where the tables stand", reason=str(error))

    def _read_and_apply(self) -> None:
        self._quality.check()
        self._batches = self._new_batches()
        with (
            closing(self._open_tables()) as self._tables,
            closing(self._open_consumer(self._assigned, self._revoked)) as self._consumer,
        ):
            self._observer.running()
            while not self._stop.is_set():
                self._batches.add(self._consumer.poll(POLL_S))
                for batch in self._batches.due():
                    self._apply(batch)
                self._upkeep.turn(self._tables.opened, self._consumer.assigned())
                self._show_lag()
            for batch in self._batches.take_all():
                self._apply(batch)
            self._show_lag()

    def _apply(self, batch: RecordBatch) -> None:
        """Bring one batch into its table, or drop it and read again from where the table stands."""
        started = time.perf_counter()
        with self._tracing.span("batch", batch.headers) as span:
            span.set_attributes({"topic": batch.topic, "records": len(batch)})
            self._bring_into_table(batch, started)

    def _bring_into_table(self, batch: RecordBatch, started: float) -> None:
        read = read_events(batch)
        if read.has_requests:
            read = self._waiting_out("re-read", lambda: self._rereader.answer(batch.topic, read, self._still_alive))
        table = self._tables.table_for(batch.topic, read.collections)
        if table is not None and len(read.events) and (stale := self._stale_rules(batch, table)):
            self._wait_for_rules(batch.topic, table, stale)
            return
        self._reject(batch, read.rejected, table, self._quality.dirty_data.policy)
        if table is None or (batch.must_commit and not table.is_certain):
            self._batches.not_committed(batch)
            return
        if self._tables.topic_moved(batch.topic):
            raise Transient(f"topic {batch.topic} is no longer the one that its table was filled from")
        try:
            results = self._commit(batch, read, table)
        except StaleRules as stale:  # another writer's commit has masked the rows since this one's last look
            self._wait_for_rules(batch.topic, table, stale)
            return
        except Fenced as fenced:
            log.warning("batch dropped", reason=str(fenced), topic=batch.topic)
            self._read_again(batch.topic, table)
            return
        if not results:
            self._batches.not_committed(batch)
            return
        self._batches.committed(batch)
        self._has_committed = True
        self._consumer.hint_offsets({(batch.topic, each): part.end for each, part in batch.ranges.items()})
        self._observer.committed(table, batch, read.events, results, time.perf_counter() - started)

    def _stale_rules(self, batch: RecordBatch, table: Table) -> StaleRules | None:
        """Say what keeps the batch out of its table until newer rules are in force here.

        Asked before anything is rejected: else each time that the batch is read its letters would be written again.
        """
        version = self._quality.of(table.collection.name).rules.version
        for sink in table.sinks:
            if not sink.has(batch.ranges):
                try:
                    check_masks(sink.writer.snapshot.metadata, version, sink.writer.location.url)
                except StaleRules as stale:
                    return stale
        return None

    def _wait_for_rules(self, topic: str, table: Table, stale: StaleRules) -> None:
        """Drop what is in hand of the topic, to be read again with the rules in force a moment later."""
        self._observer.waiting(str(stale))
        self._read_again(topic, table)
        self._keep_alive(STALE_RULES_WAIT_S)
        self._observer.paused(self._consumer.assigned(), paused=False)

    def _commit(self, batch: RecordBatch, read: ReadEvents, table: Table) -> dict[str, CommitResult]:
        """Commit the batch to each table that lacks it; return what came of it by table, where there was a need."""
        if table.history is not None and len(read.events):  # what changes no row of today is a row of the history
            read = replace(read, events=replace(read.events, must_commit=True))
        hand = _BatchInHand(batch, read, table, self._quality.of(table.collection.name))
        results = {}
        for sink in table.sinks:
            if sink.has(batch.ranges):
                continue
            result = self._commit_to(sink, hand)
            if result is not None:
                results[sink.name] = result
        return results

    def _commit_to(self, sink: Sink, hand: "_BatchInHand") -> CommitResult | None:
        """Commit the batch to one table."""
        while True:
            with self._observer.decoding():
                documents = hand.documents(sink)
                fitted = sink.schemas.fit(documents)
                encoded = encode_batch(
                    fitted,
                    sink.writer.schema,
                    sink.stands,
                    history=sink.is_history,
                    rejected_deletes=hand.quality.dirty_data.rejected_updates == "delete",
                )
            self._reject_documents(hand, documents)
            try:
                result = self._waiting_out("commit", lambda: sink.writer.commit(encoded))  # noqa: B023
            except SchemaMoved:
                continue
            sink.schemas.committed(documents.source_schema, fitted.decoded.stats.conflicts, hand.quality.rules)
            self._observer.encoded(hand.table, sink, encoded, fitted)
            return result

    def _reject_documents(self, hand: "_BatchInHand", documents: DecodedEvents) -> None:
        """Deal with what is wrong with documents, once for all tables: it does not depend on them."""
        if not hand.is_settled:
            rejected = {hand.read.positions[i]: why for i, why in documents.rejected.items()}
            self._reject(hand.batch, rejected, hand.table, hand.quality.dirty_data.policy)
            hand.is_settled = True

    def _reject(
        self, batch: RecordBatch, rejected: Mapping[int, Rejection], table: Table | None, policy: OnFailure
    ) -> None:
        """Do with records what their own policy or `policy` says; not with those that a table has left behind already.

        Raises `Fatal` when that is to stop.
        """
        letters = []
        filtered: Counter[str] = Counter()
        for position, rejection in sorted(rejected.items()):
            if table is not None and not table.is_new(batch.partitions[position], batch.offsets[position]):
                continue
            if rejection.code is ReasonCode.FILTERED:  # nothing is wrong with it, and there may be many
                filtered[rejection.rule or ""] += 1
                continue
            certain = table.collection if table is not None and table.is_certain else None
            letter = dead_letter(batch, position, rejection, certain)
            match rejection.policy or policy:
                case "fail":
                    self._observer.rejected(letter, "fail")
                    raise Fatal(
                        f"record {letter.topic}:{letter.partition}:{letter.offset} was rejected and the policy is "
                        f"fail: {rejection.message}; the event stays in Kafka, so correcting the document does not "
                        "help: change the rule, or set the policy to dlq or skip, and publish the pipeline again"
                    )
                case "skip":
                    self._observer.rejected(letter, "skip")
                case "dlq":
                    letters.append(letter)
        self._observer.filtered(batch.topic, filtered)
        if letters:
            self._waiting_out("dead letters", lambda: self._dead_letters.write(letters))
            self._observer.dead_lettered(letters)

    def _waiting_out(self, what: str, operation: Callable[[], T]) -> T:
        """Repeat the operation while the store or Kafka is away, a living member of the group that reads nothing."""
        try:
            result = retrying(operation, self._observer.retried(what), self._stop, sleep=self._keep_alive)
            self._observer.running()
            return result
        finally:
            self._observer.paused(self._consumer.assigned(), paused=False)

    def _keep_alive(self, seconds: float) -> None:
        self._observer.paused(self._consumer.assigned(), paused=True)
        until = time.monotonic() + seconds
        while not self._stop.is_set() and (left := until - time.monotonic()) > 0:
            self._consumer.keep_alive(min(left, POLL_S))
            self._show_lag()

    def _still_alive(self) -> None:
        self._consumer.keep_alive(0)

    def _show_lag(self) -> None:
        stands = self._batches.next_offsets()
        lags = {(topic, p): self._consumer.lag(topic, p, at) for (topic, p), at in stands.items()}
        self._observer.lagging(stands, lags)

    # -- positions ----------------------------------------------------------------------------------------------------

    def _assigned(self, topic: str, partition: int, held: HeldOffsets) -> int:
        offset = self._tables.start_offset(topic, partition, held)
        self._batches.start_at(topic, partition, offset)
        log.info("partition assigned", topic=topic, partition=partition, offset=offset)
        return offset

    def _revoked(self, partitions: list[tuple[str, int]]) -> None:
        again = {
            (topic, other): offset
            for topic, partition in partitions
            for other, offset in self._batches.forget(topic, partition).items()
        }
        for (topic, partition), offset in again.items():
            if (topic, partition) not in partitions:
                self._consumer.seek(topic, partition, offset)

    def _read_again(self, topic: str, table: Table) -> None:
        table.reload()
        for partition in self._batches.discard(topic):
            low, high = self._consumer.held(topic, partition)
            offset = table.start_offset(partition, low, high)
            self._batches.start_at(topic, partition, offset)
            self._consumer.seek(topic, partition, offset)


@dataclass(slots=True)
class _BatchInHand:
    """A batch on its way into the tables of its collection, and the documents in it, made ready for rows."""

    batch: RecordBatch
    read: ReadEvents
    table: Table
    quality: DocumentQuality
    is_settled: bool = False
    _ready: list[DecodedEvents] = field(default_factory=list)

    def documents(self, sink: Sink) -> DecodedEvents:
        """Documents to columns, checked and changed by the rules; what is wrong with documents stands beside them.

        It is done once for all tables that know the same of their documents.
        """
        events, rules, policies = self.read.events, self.quality.rules, sink.schemas.policies
        known = sink.schemas.known(rules)
        for ready in self._ready:
            if ready.known_schema == known:
                return ready
        too_large = oversized(events, self.quality.dirty_data.max_document_size)
        decoded = decode_events(events, known, too_large, policies)
        self._ready.append(transformed(validated(decoded, rules, policies), rules, policies))
        return self._ready[-1]
