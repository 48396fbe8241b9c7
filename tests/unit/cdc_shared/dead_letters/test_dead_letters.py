"""List, show, replay, discard: over a topic in memory and a lake in a directory."""

import json
from pathlib import Path
from typing import Any

import pytest
from letters import KEYS, MemoryKafka, MemoryTopic, letter

from cdc_shared.dead_letters.dead_letters import LETTERS_AT_ONCE, DeadLetters
from cdc_shared.dead_letters.lake_records import put_in_lake
from cdc_shared.dead_letters.letter import ALL_LETTERS, LetterFilter, NoLetter, Place
from cdc_shared.dead_letters.letter_topic import LetterTopic
from cdc_shared.dead_letters.replay_records import CannotReplay
from cdc_shared.dead_letters.sealed_record import RawRecord, seal
from cdc_shared.delta.actions import Action, Transaction
from cdc_shared.delta.log import DeltaLog
from cdc_shared.documents import event_key
from cdc_shared.errors import Transient
from cdc_shared.kafka.spec_topic import UnknownPipeline
from cdc_shared.kafka.topics import TopicIdentity, UnknownTopic, partition_for
from cdc_shared.models.common import PipelineSpec
from cdc_shared.security.data_key import DataKeys
from cdc_shared.settings import ObjectStoreSettings
from cdc_shared.storage.object_store import open_store

pytestmark = pytest.mark.unit

STORES = ObjectStoreSettings()
PARTITIONS = 3
TOPIC_ID = "id"


class Facts:
    """Every topic has three partitions and takes 2 KiB."""

    def __init__(self) -> None:
        self.missing: set[str] = set()

    def identity(self, topic: str) -> TopicIdentity:
        if topic in self.missing:
            raise UnknownTopic(topic)
        return TopicIdentity(TOPIC_ID, PARTITIONS)

    def max_record_bytes(self, topic: str) -> int:
        return 2048


class Library:
    """The library over memory. Pipeline `p` is published, with or without a history."""

    def __init__(self, directory: Path) -> None:
        self.topic = MemoryTopic()
        self.kafka = MemoryKafka(self.topic)
        self.facts = Facts()
        self.root = str(directory / "lake")
        self.keys = KEYS
        self.history = False
        self.spec_reads = 0
        self.api = DeadLetters(
            LetterTopic(self.topic.open),
            lambda: self.facts,
            lambda: self.keys,
            STORES,
            self._spec,
            lambda: self.kafka,  # type: ignore[arg-type,return-value]
            lambda: self.kafka,  # type: ignore[arg-type,return-value]
            lambda: 99.0,
        )

    def write(self, offset: int, *, document_id: Any = None, value: bytes | None = None, **about: Any) -> Place:
        key = event_key(json.dumps(offset if document_id is None else document_id))
        record = RawRecord(key, b"rubbish" if value is None else value)
        made = letter(offset, **about)
        self.topic.write(made, record)
        return made.place

    def write_large(self, offset: int) -> Place:
        about = letter(offset)
        sealed = seal(RawRecord(event_key("1"), b"rubbish"), KEYS.current("p"), "p", about.place)
        url = put_in_lake(self.root, "p", about.place, sealed, STORES)
        self.topic.write(letter(offset, lake_url=url))
        return about.place

    def commit(self, next_offset: int) -> None:
        """Both tables of `things` have read partition 0 so far."""
        for name in ("things", "things__changes"):
            url = f"{self.root}/p/db/{name}"
            log = DeltaLog(open_store(url, STORES))
            actions = [Action(txn=Transaction(f"cdc:{TOPIC_ID}:0", next_offset))]
            log.append(log.load().version + 1, actions)

    def standing(self, which: LetterFilter = ALL_LETTERS) -> list[int]:
        return [each.letter.place.offset for each in self.api.list_letters(which, 10_000).letters]

    def _spec(self, name: str) -> PipelineSpec:
        self.spec_reads += 1
        if name != "p":
            raise UnknownPipeline(f"pipeline {name} is not published")
        return PipelineSpec.model_validate(
            {
                "name": "p",
                "source": {"connection": "env:X", "database": "db"},
                "sink": {"root": self.root, "history": self.history},
            }
        )


@pytest.fixture
def library(tmp_path: Path) -> Library:
    return Library(tmp_path)


def test_letters_are_listed_by_the_page_without_a_key(library: Library) -> None:
    library.keys = DataKeys([bytes(32)])
    for offset in range(5):
        library.write(offset)
    first = library.api.list_letters(limit=2)
    assert [each.letter for each in first.letters] == [letter(0), letter(1)]
    rest = library.api.list_letters(limit=3, after=first.next_after or 0)
    assert [each.letter.place.offset for each in rest.letters] == [2, 3, 4]
    assert rest.next_after is None
    assert library.api.list_letters(LetterFilter(pipeline="other")).letters == []
    assert (library.api.count(ALL_LETTERS), library.api.count(LetterFilter(pipeline="other"))) == (5, 0)


def test_a_letter_shows_its_content_only_when_asked(library: Library) -> None:
    place = library.write(1, value=b'{"name": "Ursula"}')
    assert library.api.show(place).value == {"name": "string"}
    revealed = library.api.show(place, reveal=True)
    assert (revealed.value, revealed.revealed, revealed.letter) == ({"name": "Ursula"}, True, letter(1))
    assert library.api.show(library.write_large(2), reveal=True).value == "rubbish"
    with pytest.raises(NoLetter):
        library.api.show(Place("p.db.things", 0, 9))


def test_a_replayed_letter_is_done_with(library: Library) -> None:
    places = [library.write(offset) for offset in range(3)]
    assert library.api.replay(places[1]).replayed == 1
    assert library.standing() == [0, 2]
    (request,) = library.kafka.sent
    assert request.topic == "p.db.things"
    assert request.key == event_key("1")
    assert request.partition == partition_for(request.key, PARTITIONS)
    assert json.loads(request.value or b"")["replay"] == {"attempt": 2, "first_seen_ms": 5}
    with pytest.raises(NoLetter):
        library.api.replay(places[1])
    assert len(library.kafka.sent) == 1


def test_a_history_gets_the_event_in_the_same_transaction(library: Library) -> None:
    library.history = True
    source = {"db": "db", "collection": "things", "ts_ms": 1}
    for offset in range(2):
        library.write(offset, value=json.dumps({"op": "c", "source": source, "after": '{"_id": 0}'}).encode())
    library.commit(1)
    done = library.api.replay(ALL_LETTERS)
    assert (done.replayed, library.standing()) == (1, [1])
    ((_, reason),) = done.examples
    assert reason.startswith("its batch is not yet in the tables")
    assert [json.loads(each.value or b"")["op"] for each in library.kafka.sent] == ["c", "x"]
    assert library.kafka.sendings == [3]


def test_any_number_of_letters_goes_out_in_portions(library: Library) -> None:
    told: list[int] = []
    for offset in range(2 * LETTERS_AT_ONCE + 5):
        library.write(offset, code="validation_failed" if offset % 2 else "malformed_event")
    done = library.api.replay(LetterFilter(code="malformed_event"), told.append)
    assert done.replayed == LETTERS_AT_ONCE + 3
    assert told == [LETTERS_AT_ONCE, LETTERS_AT_ONCE + 3]
    assert library.kafka.sendings == [2 * LETTERS_AT_ONCE, 6]
    assert len(library.standing()) == LETTERS_AT_ONCE + 2
    assert library.spec_reads == 1
    assert library.api.replay(LetterFilter(code="malformed_event")).replayed == 0


def test_an_interrupted_replay_goes_on_where_it_was(library: Library) -> None:
    for offset in range(LETTERS_AT_ONCE + 5):
        library.write(offset)

    def interrupt(_: int) -> None:
        library.kafka.fails = Transient("Kafka is away")

    with pytest.raises(Transient):
        library.api.replay(ALL_LETTERS, interrupt)
    assert len(library.standing()) == 5
    assert library.api.replay(ALL_LETTERS).replayed == 5
    assert len({each.key for each in library.kafka.sent}) == len(library.kafka.sent) == LETTERS_AT_ONCE + 5


def test_those_that_cannot_be_replayed_stand_and_say_why(library: Library) -> None:
    library.write(0)
    library.topic.write(letter(1), RawRecord(None, b"no key"))
    library.write(2, pipeline="gone")
    library.topic.write(letter(3, keys=DataKeys([bytes(32)])), RawRecord(b"k", b"v"), DataKeys([bytes(32)]))
    library.facts.missing.add("p.db.others")
    library.write(4, place=Place("p.db.others", 0, 4), collection="others")
    moved = letter(5)
    sealed = seal(RawRecord(b"k", b"v"), KEYS.current("p"), "p", letter(6).place)
    headers = [(name, str(value).encode()) for name, value in moved.headers()]
    library.topic.append(str(moved.place).encode(), sealed, headers)
    large = library.write_large(6)
    Path(f"{library.root}/p/_dead_letters/p.db.things/0/6").unlink()

    done = library.api.replay(ALL_LETTERS)
    assert (done.replayed, library.standing()) == (1, [1, 2, 3, 4, 5, 6])
    reasons = [reason for _, reason in done.examples]
    for reason, part in zip(
        reasons,
        ["no key", "gone is not published", "CDC_DATA_KEY does not hold", "no topic p.db.others", "changed", "is gone"],
        strict=True,
    ):
        assert part in reason
    assert done.refused == dict.fromkeys(reasons, 1)
    with pytest.raises(CannotReplay, match=f"dead letter {large} cannot be replayed: its content in the lake is gone"):
        library.api.replay(large)


def test_an_event_that_its_topic_would_not_take_is_refused(library: Library) -> None:
    library.history = True
    source = {"db": "db", "collection": "things", "ts_ms": 1}
    after = json.dumps({"_id": 0, "text": "x" * 2048})
    place = library.write(0, value=json.dumps({"op": "c", "source": source, "after": after}).encode())
    library.commit(1)
    with pytest.raises(CannotReplay, match=r"larger than topic p\.db\.things takes \(2,048 bytes\)"):
        library.api.replay(place)
    library.history = False
    assert library.api.replay(place).replayed == 1


@pytest.mark.parametrize("act", ["replay", "discard"])
def test_what_lies_in_the_lake_goes_with_its_letter(library: Library, act: str) -> None:
    place = library.write_large(0)
    content = Path(f"{library.root}/p/_dead_letters/p.db.things/0/0")
    assert content.exists()
    getattr(library.api, act)(place)
    assert not content.exists()
    assert library.standing() == []


def test_discarded_letters_are_gone_and_nothing_is_sent(library: Library) -> None:
    library.keys = DataKeys([bytes(32)])  # not needed for this
    told: list[int] = []
    for offset in range(LETTERS_AT_ONCE + 5):
        library.write(offset, rule="amount" if offset else None)
    assert library.api.discard(LetterFilter(rule="amount"), told.append) == LETTERS_AT_ONCE + 4
    assert told == [LETTERS_AT_ONCE, LETTERS_AT_ONCE + 4]
    assert library.standing() == [0]
    assert library.api.discard(letter(0).place) == 1
    with pytest.raises(NoLetter):
        library.api.discard(letter(0).place)
    assert library.kafka.sent == []
