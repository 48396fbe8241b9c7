"""`delta-writer reread`: what people type for an `_id`, and what the command says."""

import re
from collections.abc import Callable, Iterable
from typing import Final

from cdc_shared.documents import InvalidDocument, key_text, key_value, parse
from cdc_shared.errors import Fatal
from cdc_shared.kafka.reread_requests import request_rereads
from cdc_shared.kafka.topics import change_topic
from cdc_shared.models.common import PipelineSpec

SHOWN_FAILURES: Final = 20

_BARE_OBJECT_ID: Final = re.compile(r"[0-9a-fA-F]{24}")


def key_of(text: str) -> str | None:
    """The key text of an `_id` written as Extended JSON, either version (`42`, `"text"`, `{"$oid": "…"}`), or None.

    24 hex digits alone are an ObjectId: what is meant nearly always, and no number that BSON could hold.
    """
    if _BARE_OBJECT_ID.fullmatch(text):
        text = f'{{"$oid":"{text.lower()}"}}'
    try:
        key = key_text(parse(text))
        key_value(key)
    except (InvalidDocument, KeyError):
        return None
    return key


def reread(
    bootstrap_servers: str,
    spec: PipelineSpec,
    collection: str,
    ids: Iterable[str],
    reason: str,
    say: Callable[[str], None],
) -> None:
    """Ask for the documents with these ids to be read again; `say` gets lines of text.

    Raises `Fatal` for a collection that is not captured and for ids that are none, before anything was sent, and when
    Kafka did not acknowledge all.
    """
    if not spec.source.captures(collection):
        raise Fatal(f"pipeline {spec.name} does not capture {collection}: correct the name, or the spec")
    keys, wrong = [], []
    for text in ids:
        key = key_of(text)
        if key is None:
            wrong.append(text)
        else:
            keys.append(key)
    if wrong:
        raise Fatal(
            f"nothing was sent, because {len(wrong)} of {len(wrong) + len(keys)} are no _id: "
            f"{', '.join(wrong[:SHOWN_FAILURES])}; write Extended JSON, for example 42, '\"text\"', "
            '\'{"$oid": "…"}\' or the 24 hex digits of an ObjectId alone'
        )
    database = spec.source.database
    result = request_rereads(bootstrap_servers, spec.name, database, collection, keys, reason=reason)
    topic = change_topic(spec.name, database, collection)
    say(f"{result.acknowledged} re-read request{'s' * (result.acknowledged != 1)} sent to {topic}")
    if result.failed:
        for key, why in list(result.failed.items())[:SHOWN_FAILURES]:
            say(f"  not acknowledged: {key}: {why}")
        raise Fatal(f"{len(result.failed)} of {len(keys)} requests were not acknowledged: send them again")
