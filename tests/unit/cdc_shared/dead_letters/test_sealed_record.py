"""A record opens for its own place and with its own key, and otherwise not at all."""

from dataclasses import replace

import pytest
from letters import KEYS, letter

from cdc_shared.dead_letters.letter import Letter, Place
from cdc_shared.dead_letters.sealed_record import RawRecord, seal, unseal
from cdc_shared.security import crypto
from cdc_shared.security.data_key import DataKeys, UnknownDataKey

pytestmark = pytest.mark.unit

RECORDS = [RawRecord(key, value) for key in (None, b"", b"key") for value in (None, b"", b"value", bytes(range(256)))]


def sealed(record: RawRecord, about: Letter, keys: DataKeys = KEYS) -> bytes:
    return seal(record, keys.current(about.pipeline), about.pipeline, about.place)


@pytest.mark.parametrize("record", RECORDS, ids=repr)
def test_what_was_sealed_opens_byte_for_byte(record: RawRecord) -> None:
    assert unseal(sealed(record, letter()), letter(), KEYS) == record


def test_nothing_of_it_is_readable() -> None:
    record = RawRecord(b'{"id":"Ursula"}', b"Ursula")
    assert b"Ursula" not in sealed(record, letter())
    assert "Ursula" not in repr(record)


@pytest.mark.parametrize(
    "elsewhere",
    [
        replace(letter(), pipeline="other"),
        *(replace(letter(), place=place) for place in (Place("t", 0, 8), Place("t", 1, 7), Place("u", 0, 7))),
    ],
)
def test_what_was_moved_to_another_letter_is_refused(elsewhere: Letter) -> None:
    with pytest.raises(crypto.DecryptionFailed, match="was changed, or belongs to another letter"):
        unseal(sealed(RawRecord(b"k", b"v"), letter()), elsewhere, KEYS)


def test_a_changed_byte_is_refused() -> None:
    content = bytearray(sealed(RawRecord(b"k", b"v"), letter()))
    content[-1] ^= 1
    with pytest.raises(crypto.DecryptionFailed):
        unseal(bytes(content), letter(), KEYS)


def test_after_a_rotation_old_letters_open_until_their_key_is_taken_away() -> None:
    old, new = crypto.generate_key(), crypto.generate_key()
    about = letter(keys=DataKeys([old]))
    content = sealed(RawRecord(b"k", b"v"), about, DataKeys([old]))
    assert unseal(content, about, DataKeys([new, old])) == RawRecord(b"k", b"v")
    with pytest.raises(UnknownDataKey):
        unseal(content, about, DataKeys([new]))
