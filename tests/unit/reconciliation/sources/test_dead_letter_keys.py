"""Which keys have dead letters: told by what is sealed in them."""

from pathlib import Path

import pytest
from letters import KEYS, MemoryTopic, letter

from cdc_shared.dead_letters.lake_records import put_in_lake
from cdc_shared.dead_letters.letter import Place
from cdc_shared.dead_letters.letter_topic import LetterTopic
from cdc_shared.dead_letters.sealed_record import RawRecord, seal
from cdc_shared.documents import event_key
from cdc_shared.security.data_key import DataKeys
from cdc_shared.settings import ObjectStoreSettings
from reconciliation.sources.dead_letter_keys import DeadLetterKeys

pytestmark = pytest.mark.unit

STORES = ObjectStoreSettings(_env_file=None)  # type: ignore[call-arg]
OTHER_KEYS = DataKeys([bytes(range(1, 33))])
TOPIC = "p.db.things"


def keys_of(topic: MemoryTopic) -> DeadLetterKeys:
    return DeadLetterKeys(LetterTopic(topic.open), "p", TOPIC, KEYS, STORES, lambda key: f"masked {key}")


def record(key: str) -> RawRecord:
    return RawRecord(event_key(key), b"{}")


def test_letters_are_found_by_the_key_that_the_table_has() -> None:
    topic = MemoryTopic()
    topic.write(letter(1), record("1"))
    topic.write(letter(2), record("2"))
    topic.write(letter(3), record("1"))
    topic.write(letter(4, place=Place("p.db.others", 0, 4)), record("1"))
    topic.write(letter(5, pipeline="q"), record("1"))
    topic.write(letter(6), RawRecord(None, b"{}"))
    topic.write(letter(7), RawRecord(b"\xff", b"{}"))
    found = keys_of(topic).of({"masked 1", "masked 3"})
    assert {key: [each.place.offset for each in letters] for key, letters in found.items()} == {"masked 1": [1, 3]}


def test_a_letter_that_is_done_with_explains_nothing() -> None:
    topic = MemoryTopic()
    topic.write(letter(1), record("1"))
    topic.append(str(letter(1).place).encode(), None)
    assert keys_of(topic).of({"masked 1"}) == {}


def test_a_letter_that_cannot_be_opened_is_passed_over() -> None:
    topic = MemoryTopic()
    topic.write(letter(1, keys=OTHER_KEYS), record("1"), OTHER_KEYS)
    topic.append(str(letter(2).place).encode(), b"nonsense", [(n, str(v).encode()) for n, v in letter(2).headers()])
    topic.write(letter(3), record("1"))
    assert [each.place.offset for each in keys_of(topic).of({"masked 1"})["masked 1"]] == [3]


def test_a_large_letter_is_looked_for_in_the_lake(tmp_path: Path) -> None:
    topic = MemoryTopic()
    there, gone = letter(1), letter(2)
    sealed = seal(record("1"), KEYS.current("p"), "p", there.place)
    url = put_in_lake(str(tmp_path), "p", there.place, sealed, STORES)
    topic.write(letter(1, lake_url=url))
    topic.write(letter(2, lake_url=url.replace("/1", "/2")))
    assert gone.place != there.place
    assert [each.place.offset for each in keys_of(topic).of({"masked 1"})["masked 1"]] == [1]
