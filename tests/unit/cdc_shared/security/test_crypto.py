"""Encryption that detects every change and never repeats a nonce by itself."""

import random

import pytest

from cdc_shared.security import crypto

pytestmark = pytest.mark.unit

KEY = bytes(range(32))


@pytest.mark.parametrize("size", [0, 1, 15, 16, 17, 4096])
def test_round_trip(size: int) -> None:
    plaintext = bytes(i % 251 for i in range(size))
    message = crypto.encrypt(KEY, plaintext, b"about")
    assert len(message) == crypto.NONCE_BYTES + size + crypto.TAG_BYTES
    assert crypto.decrypt(KEY, message, b"about") == plaintext


def test_a_known_message_still_opens() -> None:
    """Test case 16 of the GCM specification (McGrew and Viega): 256-bit key, associated data."""
    key = bytes.fromhex("feffe9928665731c6d6a8f9467308308" * 2)
    nonce = bytes.fromhex("cafebabefacedbaddecaf888")
    ciphertext = bytes.fromhex(
        "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa"
        "8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f662"
    )
    tag = bytes.fromhex("76fc6ece0f4e1768cddf8853bb2d551b")
    about = bytes.fromhex("feedfacedeadbeeffeedfacedeadbeefabaddad2")
    plaintext = bytes.fromhex(
        "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a72"
        "1c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b39"
    )
    assert crypto.decrypt(key, nonce + ciphertext + tag, about) == plaintext


def test_every_changed_bit_is_refused() -> None:
    message = crypto.encrypt(KEY, b"value", b"about")
    for position in range(len(message)):
        for bit in range(8):
            changed = bytearray(message)
            changed[position] ^= 1 << bit
            with pytest.raises(crypto.DecryptionFailed):
                crypto.decrypt(KEY, bytes(changed), b"about")


def test_other_key_other_associated_data_and_cut_messages_are_refused() -> None:
    message = crypto.encrypt(KEY, b"value", b"about")
    for key, text, about in [
        (crypto.generate_key(), message, b"about"),
        (KEY, message, b"other"),
        (KEY, message[:-1], b"about"),
        (KEY, b"", b"about"),
    ]:
        with pytest.raises(crypto.DecryptionFailed):
            crypto.decrypt(key, text, about)


def test_equal_messages_never_look_equal() -> None:
    assert len({crypto.encrypt(KEY, b"same") for _ in range(1000)}) == 1000


def test_keys_round_trip_as_text() -> None:
    key = crypto.generate_key()
    assert len(key) == crypto.KEY_BYTES
    assert crypto.decode_key(crypto.encode_key(key) + "\n", "here") == key


@pytest.mark.parametrize("text", ["", "short", "A" * 43, "!" * 44, "ключ", "QUJD"])
def test_what_is_no_key_is_refused_without_showing_it(text: str) -> None:
    with pytest.raises(crypto.InvalidKey, match="CDC_SECRETS_KEY holds no key") as caught:
        crypto.decode_key(text, "CDC_SECRETS_KEY")
    assert not text or text not in str(caught.value)


def test_random_texts_as_keys_never_crash(rng: random.Random) -> None:
    for _ in range(300):
        text = rng.randbytes(rng.randint(0, 60)).decode("latin-1")
        with pytest.raises(crypto.InvalidKey):
            crypto.decode_key(text, "x")
