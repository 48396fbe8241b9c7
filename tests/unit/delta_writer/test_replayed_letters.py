"""A letter that is tried again while, or after, the tables go another way: the history has each event once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from fake_kafka import SOURCE, TOPIC
from letters import KEYS, MemoryKafka, MemoryTopic, letter
from local_pipeline import LocalPipeline

from cdc_shared.dead_letters.dead_letters import DeadLetters
from cdc_shared.dead_letters.letter import NoLetter, Place
from cdc_shared.dead_letters.letter_topic import LetterTopic
from cdc_shared.dead_letters.replay_records import CannotReplay
from cdc_shared.dead_letters.sealed_record import RawRecord
from cdc_shared.delta.log import DeltaLog
from cdc_shared.delta.offsets import ChangeTopic
from cdc_shared.kafka.topics import TopicIdentity
from cdc_shared.models.data_quality import QualitySpec
from cdc_shared.resync.new_start import NewStart, new_start_actions
from cdc_shared.settings import ObjectStoreSettings
from cdc_shared.storage.object_store import open_store
from delta_writer.writer.delta_writer import DeltaWriter

pytestmark = pytest.mark.unit

HISTORY = "things__changes"
NOT_YET = "its batch is not yet in the tables"
HAS_A = {"version": 1, "validation": [{"rule": "required", "path": "/a"}]}
CORRECTED = {"version": 2}


class Killed(BaseException):
    """The process dies here."""


class Replays:
    """A pipeline with a history, and the library over the letters that it has written."""

    def __init__(self, directory: Path) -> None:
        self.run = LocalPipeline(directory, history=True)
        self.run.max_rows = 100
        self.topic = MemoryTopic()
        self._taken = 0
        self.rules(HAS_A)

    def rules(self, quality: dict[str, Any]) -> None:
        self.run.spec = self.run.spec.model_copy(update={"quality": QualitySpec.model_validate(quality)})

    def go(self) -> None:
        try:
            self.run.go()
        finally:
            for each in self.run.letters[self._taken :]:
                attempt = each.replay.attempt if each.replay else 1
                made = letter(each.offset, code="validation_failed", attempt=attempt)
                self.topic.write(made, RawRecord(each.key, each.value))
            self._taken = len(self.run.letters)

    def die_committing(self, monkeypatch: pytest.MonkeyPatch, mode: str) -> None:
        """The process dies before the batch is in the table of this mode."""
        real = DeltaWriter.commit

        def commit(writer: DeltaWriter, batch: Any) -> Any:
            if writer.mode == mode:
                raise Killed
            return real(writer, batch)

        with monkeypatch.context() as crash:
            crash.setattr(DeltaWriter, "commit", commit)
            with pytest.raises(Killed):
                self.go()

    def replay(self, offset: int) -> int:
        """How many records were sent to the change topic."""
        kafka = MemoryKafka(self.topic)
        DeadLetters(
            LetterTopic(self.topic.open),
            lambda: self,
            lambda: KEYS,
            ObjectStoreSettings(),
            lambda _: self.run.spec,
            lambda: kafka,  # type: ignore[arg-type,return-value]
            lambda: kafka,  # type: ignore[arg-type,return-value]
        ).replay(Place(TOPIC, 0, offset))
        for each in kafka.sent:
            self.run.kafka.send_raw(each.key, each.value)
        return len(kafka.sent)

    def identity(self, topic: str) -> TopicIdentity:
        return self.run.kafka.describe(topic)

    def max_record_bytes(self, topic: str) -> int:
        return 1_000_000

    def history(self) -> list[tuple[int, str]]:
        """Offset and op of each row."""
        rows = self.run.rows(HISTORY, "_cdc_offset").select(["_cdc_offset", "_cdc_op"]).to_pylist()
        return [(row["_cdc_offset"], row["_cdc_op"]) for row in rows]


@pytest.fixture
def replays(tmp_path: Path) -> Replays:
    made = Replays(tmp_path)
    made.run.source.documents["things"] = [{"_id": 1, "a": 1}]
    return made


def test_a_rejected_event_comes_to_the_history_once(replays: Replays) -> None:
    replays.run.kafka.send("1", "c", {"_id": 1})
    replays.go()
    replays.rules(CORRECTED)
    assert replays.replay(0) == 2
    replays.go()
    assert replays.history() == [(1, "c"), (2, "x")]


def test_an_event_that_was_applied_after_its_letter_was_written_is_not_sent_again(
    replays: Replays, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Attacks the history: the letter is acknowledged, the batch is lost, and corrected rules take the event."""
    replays.run.kafka.send("1", "c", {"_id": 1})
    replays.die_committing(monkeypatch, "history")
    with pytest.raises(CannotReplay, match=NOT_YET):
        replays.replay(0)
    replays.rules(CORRECTED)
    with pytest.raises(CannotReplay, match=NOT_YET):
        replays.replay(0)
    replays.go()
    assert replays.history() == [(0, "c")]
    assert replays.replay(0) == 1
    replays.go()
    assert replays.history() == [(0, "c"), (1, "x")]
    with pytest.raises(NoLetter):
        replays.replay(0)


def test_a_letter_that_may_be_written_once_more_is_not_replayed_yet(
    replays: Replays, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The history alone has gone on: after the restart the letter is written again, for the same event."""
    replays.run.kafka.send("1", "c", {"_id": 1})
    replays.die_committing(monkeypatch, "deletion_vectors")
    with pytest.raises(CannotReplay, match=NOT_YET):
        replays.replay(0)
    replays.go()
    assert [each.offset for each in replays.run.letters] == [0, 0]
    replays.rules(CORRECTED)
    assert replays.replay(0) == 2
    replays.go()
    assert replays.history() == [(1, "c"), (2, "x")]
    with pytest.raises(NoLetter):
        replays.replay(0)


def test_a_replayed_event_that_was_applied_after_it_was_rejected_again_is_not_sent_again(
    replays: Replays, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As above, for the letter of the event that was sent for the history alone."""
    replays.run.kafka.send("1", "c", {"_id": 1})
    replays.go()
    assert replays.replay(0) == 2
    replays.die_committing(monkeypatch, "history")
    assert [each.offset for each in replays.run.letters] == [0, 1]
    replays.rules(CORRECTED)
    replays.go()
    assert replays.history() == [(1, "c"), (2, "x")]
    with pytest.raises(CannotReplay, match="for the history alone, which has it already: discard the letter"):
        replays.replay(1)


def test_an_event_that_was_applied_before_a_new_start_is_not_sent_again(
    replays: Replays, monkeypatch: pytest.MonkeyPatch
) -> None:
    replays.run.kafka.send("1", "c", {"_id": 1})
    replays.die_committing(monkeypatch, "history")
    replays.rules(CORRECTED)
    replays.go()
    log = DeltaLog(open_store(f"{replays.run.root}/p/db/things", ObjectStoreSettings()))
    table, topic = log.load(), ChangeTopic(TOPIC, f"id-{TOPIC}", 1)
    log.append(table.version + 1, new_start_actions(table, topic, NewStart("", {0: 1}), "t:0"))
    replays.run.kafka.send("2", "c", {"_id": 2})
    replays.go()
    partitions = replays.run.rows(HISTORY, "_cdc_offset")["_cdc_partition"].to_pylist()
    assert partitions == [0, 1]
    assert replays.replay(0) == 1


def test_the_place_is_that_of_the_event_whatever_lies_around_it(replays: Replays) -> None:
    """Attacks the look-up: the neighbours are rows, of the same source time, and the event is none."""
    for offset in range(9):
        replays.run.kafka.send("1", "u", {"_id": 1} if offset == 4 else {"_id": 1, "a": offset})
    assert SOURCE["ts_ms"]
    replays.go()
    assert [each.offset for each in replays.run.letters] == [4]
    replays.rules(CORRECTED)
    assert replays.replay(4) == 2
    replays.go()
    assert replays.history() == [(n, "u") for n in range(10) if n != 4] + [(10, "x")]
