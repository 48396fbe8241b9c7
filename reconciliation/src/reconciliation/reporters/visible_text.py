"""Text of documents as people are shown it: what a terminal, a mail header or a browser would act on is written out."""

import re
from typing import Final

_ACTED_ON: Final = re.compile(
    "[\x00-\x1f\x7f-\x9f\xad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ud800-\udfff]"
)
"""Controls, what has no width, and what turns the direction of writing: a key could pass for another one by them."""


def visible(text: str) -> str:
    """Return the text with such characters as `\\u202e`; it has one line, and none is left out."""
    return _ACTED_ON.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def shortened(text: str, length: int) -> str:
    """Return at most `length` characters of the text, and how many more there are.

    A text that is no longer than that together is returned as it is.
    """
    told = f"… ({len(text) - length:,} more characters)"
    return text if len(text) <= length + len(told) else text[:length] + told
