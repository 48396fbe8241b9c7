"""Sends the reports of this writer's pipelines to `cdc.status`."""

import threading
import time
from collections.abc import Callable, Collection
from contextlib import closing
from dataclasses import dataclass
from typing import Final

import msgspec
from confluent_kafka import KafkaException, Producer

from cdc_shared.errors import CdcError, InvalidEvent
from cdc_shared.kafka.compacted_topic import records, whole_topic_consumer
from cdc_shared.kafka.status_topic import (
    HEARTBEAT_S,
    WriterReport,
    decode_report,
    encode_report,
    key_of,
    report_key,
)
from cdc_shared.kafka.topics import STATUS_TOPIC
from cdc_shared.logging.structured_logger import get_logger
from cdc_shared.metrics.prometheus_metrics import PipelineState

PROGRESS_EVERY_S: Final = 5.0
"""A pipeline that gets on says so at most so often; a change of its state is sent at once."""
LOOK_EVERY_S: Final = 1.0
FLUSH_TIMEOUT_S: Final = 5.0

log = get_logger(__name__)


@dataclass(slots=True)
class _Reported:
    report: Callable[[], WriterReport]
    sent: WriterReport | None = None
    sent_at: float = float("-inf")


class StatusPublisher:
    """Has a thread of its own from `start` to `close`, so that a writer is heard while its pipelines wait.

    What cannot be sent is not kept: the next report replaces it. To be called from any thread.
    """

    def __init__(self, bootstrap_servers: str, producer: Producer, clock: Callable[[], float] = time.monotonic) -> None:
        """`clock` is monotonic, in seconds. The producer stays its owner's."""
        self._bootstrap = bootstrap_servers
        self._producer = producer
        self._clock = clock
        self._lock = threading.Lock()
        self._pipelines: dict[str, _Reported] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="status", daemon=True)

    def start(self) -> None:
        """Begin to send what is due."""
        self._thread.start()

    def close(self) -> None:
        """Send nothing more; wait a little for what was sent last."""
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join()
        self._producer.flush(FLUSH_TIMEOUT_S)

    def add(self, pipeline: str, report: Callable[[], WriterReport]) -> None:
        """Send this pipeline's reports from now on, the first at once. `report` makes one; it returns at once."""
        with self._lock:
            self._pipelines[pipeline] = reported = _Reported(report)
            self._send_report(reported, report())

    def changed(self, pipeline: str) -> None:
        """Send a report at once: the pipeline is in another state."""
        with self._lock:
            reported = self._pipelines.get(pipeline)
            if reported is not None:
                self._send_report(reported, reported.report())

    def ended(self, pipeline: str) -> None:
        """The pipeline has ended and its last report, sent already, stays."""
        with self._lock:
            self._pipelines.pop(pipeline, None)

    def take_back(self, pipeline: str, writer: str) -> None:
        """The pipeline is gone: nothing is to be read of it any more."""
        with self._lock:
            self._pipelines.pop(pipeline, None)
            self._send(report_key(pipeline, writer), None)

    def settle(self, writer: str, specs: Collection[str]) -> None:
        """Correct what a life of this writer that ended badly has left in the topic, of pipelines that it does not run.

        Of those that are not in `specs`, nothing is left. When the topic cannot be read all stays as it is: whoever
        reads it soon takes the life before for silent.
        """
        try:
            with closing(whole_topic_consumer(self._bootstrap)) as consumer:
                left = {key_of(message): message.value() for message in records(consumer, STATUS_TOPIC)}
        except CdcError as error:
            log.warning("reports of an earlier life of this writer are not corrected", reason=str(error))
            return
        for (pipeline, of_writer), value in left.items():
            if of_writer == writer and value is not None:
                self._settle(pipeline, writer, value, is_known=pipeline in specs)

    def send_due(self) -> None:
        """Send what is due now: progress, and signs of life."""
        with self._lock:
            for each in self._pipelines.values():
                waited_s = self._clock() - each.sent_at
                if waited_s < PROGRESS_EVERY_S:
                    continue
                report = each.report()
                if waited_s >= HEARTBEAT_S or not _says_the_same(report, each.sent):
                    self._send_report(each, report)

    def _run(self) -> None:
        while not self._stop.wait(LOOK_EVERY_S):
            try:
                self.send_due()
            except Exception:  # the thread's loop: nothing may end it in silence
                log.exception("reports not sent")

    def _settle(self, pipeline: str, writer: str, value: bytes, *, is_known: bool) -> None:
        try:
            report = decode_report(value)
        except InvalidEvent:
            report, is_known = None, False
        with self._lock:
            if pipeline in self._pipelines:
                return
            if report is None or not is_known:
                self._send(report_key(pipeline, writer), None)
            elif report.state is not PipelineState.STOPPED:
                ended = msgspec.structs.replace(report, state=PipelineState.STOPPED, reason=None)
                self._send(report_key(pipeline, writer), encode_report(ended))

    def _send_report(self, reported: _Reported, report: WriterReport) -> None:
        if self._send(report_key(report.pipeline, report.writer), encode_report(report)):
            reported.sent, reported.sent_at = report, self._clock()

    def _send(self, key: bytes, value: bytes | None) -> bool:
        try:
            self._producer.produce(STATUS_TOPIC, key=key, value=value, partition=0)
            self._producer.poll(0)
        except (BufferError, KafkaException) as error:
            log.warning("report not sent", key=key.decode(), reason=str(error))
            return False
        return True


def _says_the_same(report: WriterReport, sent: WriterReport | None) -> bool:
    """Whether nothing but time has passed."""
    return sent is not None and msgspec.structs.replace(report, at_ms=sent.at_ms, turn_ms=sent.turn_ms) == sent
