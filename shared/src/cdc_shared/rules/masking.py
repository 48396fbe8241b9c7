"""Masks, value by value. A value that a mask cannot treat becomes `***`: none ever leaves one as it was.

Keyed masks are HMAC-SHA-256. What is digested begins differently for each use, so that no two uses of one key can be
compared: a value's canonical form begins with a quote, a digit, a sign, a bracket or one of `tfnNI`.
"""

import hashlib
import re
from collections.abc import Callable
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Final

from bson import Binary, DatetimeMS, Decimal128, Int64, ObjectId

from cdc_shared.documents.canonical import canonical_text
from cdc_shared.documents.extended_json import INT64_MIN, InvalidDocument, milliseconds, parse
from cdc_shared.models.data_quality import EmailMask, Hash, MaskRule, Partial, Redact, TruncateDate
from cdc_shared.rules.conversion import text_of

REDACTED: Final = "***"
MASK_CHARACTER: Final = "*"

_BLOCK_BYTES: Final = 64
_INNER: Final = bytes(byte ^ 0x36 for byte in range(256))
_OUTER: Final = bytes(byte ^ 0x5C for byte in range(256))

Mask = Callable[[Any], Any]
"""A value that is not null → what is shown of it."""

_ADDRESS: Final = re.compile(r"[^@\s]+@[^@\s]+")
_ADDRESS_USE: Final = b"email\x00"
_DOMAIN_USE: Final = b"domain\x00"
_KEY_USE: Final = b"key\x00"
_ADDRESS_DIGITS: Final = 20
"""Hexadecimal digits, 80 bits: among a billion addresses a collision is less likely than one in a million."""
_DOMAIN_DIGITS: Final = 10
DOMAINS_REMEMBERED: Final = 1024

_OBJECT_ID_KEY: Final = re.compile(r'\{"\$oid": "([0-9a-f]{24})"\}')
_PLAIN_KEYS: Final = (str, int, Int64, ObjectId, DatetimeMS, bool, Binary)
_TEXTUAL: Final = (str, int, Int64, float, Decimal128, ObjectId, Binary)

_CYCLE_MS: Final = 146_097 * 86_400_000
"""400 years, after which the Gregorian calendar repeats itself."""
_UNIT_MS: Final = {"day": 86_400_000, "hour": 3_600_000}


def mask_of(rule: MaskRule, key: bytes) -> Mask:
    """What a mask rule does to a value. `key` is for those that have one."""
    match rule:
        case Redact(text=text):
            return lambda _: text
        case Partial(keep_last=keep_last):
            return lambda value: _partial(value, keep_last)
        case Hash():
            return hash_of(digest_with(key))
        case EmailMask(keep_domain=keep_domain):
            return email_mask(digest_with(key), keep_domain=keep_domain)
        case TruncateDate(to=to):
            return lambda value: _truncated(value, to)


Digest = Callable[[bytes], str]


def digest_with(key: bytes) -> Digest:
    """HMAC-SHA-256 (RFC 2104) in hexadecimal digits. The key is prepared once, which makes it three times as fast as
    `hmac.digest`.
    """
    block = (hashlib.sha256(key).digest() if len(key) > _BLOCK_BYTES else key).ljust(_BLOCK_BYTES, b"\0")
    inner = hashlib.sha256(block.translate(_INNER))
    outer = hashlib.sha256(block.translate(_OUTER))

    def digest(content: bytes) -> str:
        within, around = inner.copy(), outer.copy()
        within.update(content)
        around.update(within.digest())
        return around.hexdigest()

    return digest


def hash_of(digest: Digest) -> Callable[[Any], str]:
    """HMAC of a value's canonical form: 5 and 5.0 have the same, 5 and "5" do not."""
    return lambda value: digest(canonical_text(value))


def masked_key(digest: Digest, key_text: str) -> str:
    """What `_cdc_key` is where a hash rule masks `_id`: other texts always have other results.

    It equals the masked `_id` for strings, integers, ObjectIds, dates, booleans and binaries. Of any other `_id`, two
    documents may have values that the canonical form does not tell apart (the order of an object's fields), so there
    the text is digested as it is.
    """
    object_id = _OBJECT_ID_KEY.fullmatch(key_text)
    if object_id:
        return digest(b'{"$oid":"%b"}' % object_id[1].encode())
    try:
        value = parse(key_text)
    except InvalidDocument:
        value = None
    if type(value) in _PLAIN_KEYS:
        return digest(canonical_text(value))
    return digest(_KEY_USE + key_text.encode("utf-8", "surrogatepass"))


def email_mask(digest: Digest, *, keep_domain: bool) -> Callable[[Any], str]:
    """Letter case aside, equal addresses, and equal domains, stay equal. `.example` is nobody's (RFC 2606)."""

    @lru_cache(DOMAINS_REMEMBERED)
    def masked_domain(domain: str) -> str:
        return digest(_DOMAIN_USE + domain.encode())[:_DOMAIN_DIGITS] + ".example"

    def masked(value: Any) -> str:
        if type(value) is not str or not _ADDRESS.fullmatch(value):
            return REDACTED
        address = value.lower()
        domain = address.rpartition("@")[2]
        person = digest(_ADDRESS_USE + address.encode())[:_ADDRESS_DIGITS]
        return f"{person}@{domain if keep_domain else masked_domain(domain)}"

    return masked


def _partial(value: Any, keep_last: int) -> str:
    text = text_of(value) if type(value) in _TEXTUAL else None
    if text is None:
        return REDACTED
    hidden = len(text) - keep_last if len(text) > keep_last else len(text)
    return MASK_CHARACTER * hidden + text[hidden:]


def _truncated(value: Any, to: str) -> Any:
    if type(value) is not DatetimeMS:
        return REDACTED
    moment = int(value)
    if to in _UNIT_MS:
        truncated = moment - moment % _UNIT_MS[to]
    else:
        cycles, within = divmod(moment, _CYCLE_MS)  # any int64 is a date in MongoDB; Python's end with the year 9999
        start = datetime.fromtimestamp(within // 1000, UTC)
        first = datetime(start.year, 1 if to == "year" else start.month, 1, tzinfo=UTC)
        truncated = cycles * _CYCLE_MS + milliseconds(first)
    return DatetimeMS(truncated) if truncated >= INT64_MIN else REDACTED
