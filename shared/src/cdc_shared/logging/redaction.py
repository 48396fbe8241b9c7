"""Takes credentials out of text and values before they reach a log, an error message or an API answer.

It errs on the side of hiding: a masked word that was no secret costs a look at the source, a shown password costs the
password.
"""

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

MASK = "***"
MAX_DEPTH = 8

_SECRET_WORDS = (  # nosec B105 # the words, not a password
    r"password|passwd|passphrase|pwd|secret|token|authorization|api[_-]?key|access[_-]?key|private[_-]?key|key[_-]?id"
    r"|credential|sasl[._]jaas[._]config|cookie|signature"
)
_SECRET_KEY = re.compile(_SECRET_WORDS, re.IGNORECASE)
# What says where or which a secret is, not what it is.
_REFERENCE_KEY = re.compile(r"(_|\.|-)(name|names|ref|reference|version|file|path|count|type)$", re.IGNORECASE)

# The password runs to the last @ before a space or quote: an unescaped @, / or : in it must not leave its tail behind.
_URI_CREDENTIALS = re.compile(r"([a-z][a-z0-9+.-]{0,30}://[^\s:/?#@\"']*):[^\s\"']*@", re.IGNORECASE)
_AUTH_SCHEME = re.compile(r"\b(Bearer|Basic|Negotiate)\s+[A-Za-z0-9._~+/=-]{6,}", re.IGNORECASE)
# Every pattern is linear in the length of a long word: one start a word, no step back from its end.
# name=value, name: value, "name": "value". A colon with nothing around it is a reference such as secret:mongodb-uri.
_ASSIGNMENT = re.compile(
    rf"((?<![\w.-])(?=[\w.-]*(?:{_SECRET_WORDS}))[\w.-]++(?:\\?[\"']?\s*=\s*|\\?[\"']\s*:\s*|:\s+))"
    r"(\\?\"[^\"]*\"|\\?'[^']*'|(?:Bearer|Basic|Negotiate)\s+[^\s,;&\"']+|[^\s,;&\"'})\]]+)",
    re.IGNORECASE,
)
# Without one of these in it no pattern matches. Most values of a log line are such words, and need one look, not three.
_SUSPICIOUS = re.compile(r"[@=:\s]")


@lru_cache(maxsize=4096)
def is_secret_key(key: str) -> bool:
    """Whether the value under a key of this name must not be shown."""
    return _SECRET_KEY.search(key) is not None and _REFERENCE_KEY.search(key) is None


def redact_text(text: str) -> str:
    """`text` with URI passwords, authorization headers and `password=…`-like assignments masked."""
    if _SUSPICIOUS.search(text) is None:
        return text
    text = _URI_CREDENTIALS.sub(rf"\1:{MASK}@", text)
    text = _ASSIGNMENT.sub(_mask_assignment, text)
    return _AUTH_SCHEME.sub(rf"\1 {MASK}", text)


def redact_value(value: Any, key: str = "", depth: int = 0) -> Any:
    """`value` safe to show: masked whole when `key` looks secret, else with every string inside it redacted.

    Numbers, booleans and None under an innocent key are kept as they are; objects are kept when their `str` holds
    nothing to mask, otherwise replaced by the masked text. What lies deeper than `MAX_DEPTH` is replaced by the mask.
    """
    if value is None or isinstance(value, bool):
        return value
    if key and is_secret_key(key):
        return MASK
    if isinstance(value, (int, float)):
        return value
    if isinstance(value, str):
        return redact_text(value)
    if isinstance(value, (bytes, bytearray, memoryview)):
        return redact_text(bytes(value).decode("utf-8", "backslashreplace"))
    if depth >= MAX_DEPTH:
        return MASK
    if isinstance(value, Mapping):
        return {str(name): redact_value(item, str(name), depth + 1) for name, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [redact_value(item, key, depth + 1) for item in value]
    return redact_text(str(value))


def _mask_assignment(match: re.Match[str]) -> str:
    quote = re.match(r"\\?[\"']", match[2])
    opened = quote[0] if quote else ""
    closed = opened[-1] if opened else ""
    # A quoted value in text that is itself JSON ends in \" : keep what keeps that JSON whole.
    if opened.startswith("\\") and match[2].endswith("\\" + closed):
        closed = opened
    return f"{match[1]}{opened}{MASK}{closed}"
