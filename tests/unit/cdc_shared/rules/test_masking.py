"""Masks, value by value: what is shown, what is never shown, and that equal values stay equal."""

from __future__ import annotations

import hmac
import random
from typing import Any

import bson
import pytest
from bson import Binary, Code, DatetimeMS, Decimal128, Int64, MinKey, ObjectId, Timestamp
from ruled_documents import KEY

from cdc_shared.documents import document_key, document_text, key_text, parse_document
from cdc_shared.documents.bson_values import DuplicateKeys, RegularExpression, Symbol, Undefined
from cdc_shared.documents.canonical import canonical_text
from cdc_shared.models import data_quality as q
from cdc_shared.rules.masking import REDACTED, digest_with, mask_of, masked_key

pytestmark = pytest.mark.unit

VALUES: list[Any] = [
    "", "text", "4111111111111111", 0, 5, Int64(2**40), 2.5, -0.0, float("nan"), True, False, Decimal128("2.50"),
    ObjectId("000102030405060708090a0b"), DatetimeMS(1_700_000_000_123), DatetimeMS(-(2**63)), DatetimeMS(2**63 - 1),
    Binary(b"\x01", 0), Binary(bytes(16), 4), RegularExpression("a", "i"), Timestamp(1, 2), Code("f()"),
    Code("f()", {"x": 1}), MinKey(), Undefined(), Symbol("s"), {}, {"a": {"b": 1}}, [], [1, "x"],
    DuplicateKeys((("a", 1), ("a", 2))),
]  # fmt: skip


def mask(rule: str, **options: Any) -> Any:
    quality = q.QualitySpec(
        transformation=(
            {"rule": rule, "path": "/x"} | ({"key": "env:K"} if rule in ("hash", "email") else {}) | options,
        )  # type: ignore[arg-type]
    )
    return mask_of(quality.transformation[0], KEY)  # type: ignore[arg-type]


def test_the_digest_is_hmac(rng: random.Random) -> None:
    for size in (16, 32, 63, 64, 65, 200):
        key = rng.randbytes(size)
        for length in (0, 1, 63, 64, 65, 1000):
            content = rng.randbytes(length)
            assert digest_with(key)(content) == hmac.digest(key, content, "sha256").hex()


def test_equal_values_have_equal_hashes_and_others_have_not() -> None:
    hashed = mask("hash")
    assert hashed(5) == hashed(5.0) == hashed(Int64(5)) != hashed("5")
    assert hashed(Decimal128("5")) == hashed(Decimal128("5.00")) != hashed(5)
    assert hashed({"a": 1, "b": None, "c": 2.0}) == hashed({"c": 2, "a": 1})
    assert hashed(0) != hashed(-0.0)
    assert hashed([1]) != hashed([1, None])
    assert hashed("é") == hmac.digest(KEY, '"é"'.encode(), "sha256").hex()
    assert len({hashed(value) for value in VALUES}) == len(VALUES)
    assert mask_of(q.Hash(rule="hash", path="/x", key="env:K"), b"another key of some bytes")(5) != hashed(5)


@pytest.mark.parametrize(
    ("value", "keep", "shown"),
    [
        ("4111111111111111", 4, "************1111"),
        ("1234", 4, "****"),
        ("12345", 4, "*2345"),
        ("", 4, ""),
        ("né😀x", 2, "**😀x"),
        (4111111111111111, 4, "************1111"),
        (5.0, 4, "*"),
        (12345.0, 2, "***45"),
        (2.5, 1, "**5"),
        (Decimal128("1234.50"), 2, "****.5"),
        (ObjectId("000102030405060708090a0b"), 4, "********************0a0b"),
        (True, 1, REDACTED),
        (DatetimeMS(0), 1, REDACTED),
        (Binary(b"abc"), 1, REDACTED),
        ({"a": 1}, 4, REDACTED),
        (["secret"], 4, REDACTED),
    ],
)
def test_partial(value: Any, keep: int, shown: str) -> None:
    assert mask("partial", keep_last=keep)(value) == shown


def test_an_email_address_stays_one_and_its_person_the_same() -> None:
    masked = mask("email")
    shown = masked("Ann.Lee@Example.org")
    local, _, domain = shown.partition("@")
    assert len(local) == 20
    assert domain.endswith(".example")
    assert masked("ann.lee@example.org") == shown
    assert masked("bob@example.org").partition("@")[2] == domain
    assert masked("bob@example.org") != shown
    assert masked("ann.lee@example.com").partition("@")[2] != domain
    assert mask("email", keep_domain=True)("Ann@Example.org").endswith("@example.org")
    for value in [*VALUES, "no address", "a@b@c", "a b@c.de", "@", "a@", " ann@example.org"]:
        assert masked(value) == REDACTED


@pytest.mark.parametrize(
    ("value", "to", "truncated"),
    [
        (1_709_214_245_678, "hour", 1_709_211_600_000),
        (1_709_214_245_678, "day", 1_709_164_800_000),
        (1_709_214_245_678, "month", 1_706_745_600_000),
        (1_709_214_245_678, "year", 1_704_067_200_000),
        (-1, "day", -86_400_000),
        (-1, "year", -31_536_000_000),
        (-62_135_596_800_001, "year", -62_167_219_200_000),  # the year 0, which Python has not
        (253_402_300_800_000 + 5, "month", 253_402_300_800_000),  # the year 10000
    ],
)
def test_truncated_dates(value: int, to: str, truncated: int) -> None:
    assert mask("truncate_date", to=to)(DatetimeMS(value)) == DatetimeMS(truncated)


def test_a_date_before_which_there_is_no_other_is_redacted() -> None:
    assert mask("truncate_date", to="year")(DatetimeMS(-(2**63))) == REDACTED
    assert type(mask("truncate_date", to="year")(DatetimeMS(2**63 - 1))) is DatetimeMS


def test_no_mask_leaves_a_value_of_any_type_as_it_was() -> None:
    masks = [mask("redact"), mask("redact", text=""), mask("partial"), mask("hash"), mask("email")]
    for value in VALUES:
        for each in masks:
            shown = each(value)
            assert type(shown) is str
            assert canonical_text(shown) != canonical_text(value) or value == ""
        if type(value) is not DatetimeMS:
            assert mask("truncate_date", to="day")(value) == REDACTED


# --- keys -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value",
    [ObjectId("000102030405060708090a0b"), "x", "é😀", 5, Int64(2**40), True, DatetimeMS(0), Binary(b"\x01", 5)],
)
def test_a_masked_key_is_the_masked_id(value: Any) -> None:
    assert masked_key(digest_with(KEY), key_text(value)) == mask("hash")(value)


def test_keys_of_other_documents_are_others() -> None:
    digest = digest_with(KEY)
    texts = [
        '{"a": 1,"b": 2}',
        '{"b": 2,"a": 1}',
        '{"a": 1}',
        '{"a": 1,"b": null}',
        "5",
        "5.0",
        '"5"',
        "null",
        "no key",
    ]
    texts += ['{"$numberDecimal": "5"}', '{"$numberDecimal": "5.0"}', '{"$numberDecimal": "5.00"}']
    assert len({masked_key(digest, text) for text in texts}) == len(texts)


def test_a_document_and_the_key_of_its_events_have_one_masked_key() -> None:
    raw = bson.encode({"_id": ObjectId("000102030405060708090a0b"), "x": 1})
    document = parse_document(document_text(raw))
    assert isinstance(document, dict)
    assert masked_key(digest_with(KEY), document_key(raw)) == mask("hash")(document["_id"])
