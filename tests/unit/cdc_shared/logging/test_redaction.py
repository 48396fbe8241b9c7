"""What a log, an error or an API answer may show."""

import random
import string
import time

import pytest

from cdc_shared.logging.redaction import MASK, is_secret_key, redact_text, redact_value

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("mongodb://user:pw@host:27017/db?x=1", "mongodb://user:***@host:27017/db?x=1"),
        ("mongodb+srv://u:p%40ss@h1,h2/", "mongodb+srv://u:***@h1,h2/"),
        ("postgresql://a:b@c/d and s3://bucket/key", "postgresql://a:***@c/d and s3://bucket/key"),
        ("redis://:pw@host", "redis://:***@host"),
        ("password=hunter2, next", "password=***, next"),
        ("AWS_SECRET_ACCESS_KEY=abc/def+ghi", "AWS_SECRET_ACCESS_KEY=***"),
        ('{"password": "a b", "n": 1}', '{"password": "***", "n": 1}'),
        ('"{\\"token\\":\\"abc\\",\\"n\\":1}"', '"{\\"token\\":\\"***\\",\\"n\\":1}"'),
        ("Authorization: Bearer abc.def.ghi", "Authorization: ***"),
        ("sent Bearer eyJhbGciOi.x.y to it", "sent Bearer *** to it"),
        ("GET /x?X-Amz-Signature=deadbeef&a=1", "GET /x?X-Amz-Signature=***&a=1"),
    ],
)
def test_credentials_in_text_are_masked(text: str, expected: str) -> None:
    assert redact_text(text) == expected


@pytest.mark.parametrize("password", ["p@ss", "p/ss", "p:ss", "p@s/s:w@rd", "p?x", "#p@", "%40"])
def test_a_password_that_was_not_escaped_leaves_nothing_behind(password: str) -> None:
    shown = redact_text(f"cannot parse mongodb://admin:{password}@db.internal:27017/shop here")
    assert shown == "cannot parse mongodb://admin:***@db.internal:27017/shop here"


@pytest.mark.parametrize(
    "text",
    [
        "no secret 'mongodb-uri' in /etc/cdc/secrets",
        "secret:mongodb-uri cannot be resolved",
        "http://localhost:8083/connectors",
        "mongodb://host:27017,host2:27018/?replicaSet=rs",
        "topic shop.orders partition 3 offset 1200",
        "token_count is a column",
    ],
)
def test_text_without_credentials_is_left_alone(text: str) -> None:
    assert redact_text(text) == text


def test_random_passwords_never_survive(rng: random.Random) -> None:
    alphabet = string.ascii_letters + string.digits + "@:/?#[]!$&()*+,;=%-._~"
    for _ in range(500):
        password = "".join(rng.choices(alphabet, k=rng.randint(8, 30)))
        shown = redact_text(f"failed: mongodb://user:{password}@host:27017/x, retrying")
        assert password not in shown, shown
        assert shown.startswith("failed: mongodb://user:***@")


@pytest.mark.parametrize(
    "key", ["password", "db_password", "clientSecret", "AWS_ACCESS_KEY_ID", "authorization", "api-key"]
)
def test_secret_keys(key: str) -> None:
    assert is_secret_key(key)


@pytest.mark.parametrize(
    "key", ["secret_name", "key_file", "password_file", "token_count", "key", "partition", "keyspace"]
)
def test_innocent_keys(key: str) -> None:
    assert not is_secret_key(key)


def test_values_are_redacted_at_every_depth() -> None:
    value = {
        "uri": "mongodb://u:pw@h",
        "list": ["ok", {"token": 12345, "rows": 3}],
        "raw": b"password=pw",
        "none": None,
        "flag": True,
        "error": ValueError("bad mongodb://u:pw@h"),
    }
    assert redact_value(value) == {
        "uri": "mongodb://u:***@h",
        "list": ["ok", {"token": MASK, "rows": 3}],
        "raw": "password=***",
        "none": None,
        "flag": True,
        "error": "bad mongodb://u:***@h",
    }


def test_a_list_under_a_secret_key_is_masked_whole() -> None:
    assert redact_value(["a", "b"], "tokens") == MASK


def test_what_is_nested_too_deep_is_masked_and_not_walked_for_ever() -> None:
    endless: list[object] = []
    endless.append(endless)
    assert MASK in str(redact_value(endless))


@pytest.mark.parametrize("word", ["a", "password", "x.", "ab+", "token-"])
def test_a_long_word_costs_no_more_than_its_length(word):
    def seconds(length: int) -> float:
        text = (word * length)[:length]
        times = []
        for _ in range(3):
            started = time.process_time()
            redact_text(text)
            times.append(time.process_time() - started)
        return min(times)

    assert seconds(40_000) < 40 * seconds(4_000) + 0.05
