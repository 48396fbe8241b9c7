"""Records that are no change of a document: which they are, why, and whether the policy has a say."""

import json

import bson
import pytest
from bson import Binary, Int64
from debezium_events import event_key, event_value

from cdc_shared.dead_letters.rejection import ReasonCode, Rejection
from cdc_shared.documents import decode_envelopes, document_text
from cdc_shared.models.data_quality import MONGODB_MAX_DOCUMENT_BYTES
from delta_writer.transformers.change_batch import ChangeEvents
from delta_writer.validators.dirty_data_detector import malformed_documents, oversized, undecodable

pytestmark = pytest.mark.unit

LIMIT = 100_000
SECRET = "what the document holds"


def events(*documents: str | None) -> ChangeEvents:
    n = len(documents)
    return ChangeEvents(["1"] * n, list(documents), [0] * n, [0] * n, list(range(n)), ["c"] * n, {})


def of_size(size: int, **members: object) -> str:
    """A document of exactly so many bytes in BSON."""
    document = {"_id": 1, "secret": SECRET, **members, "text": ""}
    document["text"] = "x" * (size - len(bson.encode(document)))
    assert len(bson.encode(document)) == size
    return document_text(bson.encode(document))


def test_the_limit_itself_is_allowed():
    assert oversized(events(of_size(LIMIT)), LIMIT) == {}
    assert oversized(events(of_size(LIMIT + 1)), LIMIT).keys() == {0}


def test_what_counts_is_the_size_in_bson_and_not_the_text():
    binary = of_size(LIMIT, bytes=Binary(bytes(60_000)))  # base64 is longer
    quotes = of_size(LIMIT, quotes="\\" * 40_000)  # escapes are
    numbers = of_size(LIMIT + 1, longs=list(range(8_000)))  # digits are shorter
    assert len(binary) > LIMIT
    assert len(quotes) > LIMIT
    assert len(numbers) < LIMIT
    assert oversized(events(binary, quotes, numbers), LIMIT).keys() == {2}


def test_the_policy_has_a_say_up_to_what_mongodb_takes():
    large = of_size(MONGODB_MAX_DOCUMENT_BYTES)
    too_large = of_size(MONGODB_MAX_DOCUMENT_BYTES + 1)
    found = oversized(events(large, too_large), LIMIT)
    assert {i: (each.code, each.policy) for i, each in found.items()} == {
        0: (ReasonCode.OVERSIZED_DOCUMENT, None),
        1: (ReasonCode.OVERSIZED_DOCUMENT, "dlq"),
    }
    assert oversized(events(large, too_large), 10 * MONGODB_MAX_DOCUMENT_BYTES).keys() == {1}, "no limit is higher"


def test_the_message_has_sizes_and_nothing_of_the_document():
    message = oversized(events(of_size(LIMIT + 1)), LIMIT)[0].message
    assert "100,001" in message
    assert "100,000" in message
    assert SECRET not in message


def test_deletes_and_texts_that_are_no_document_have_no_size():
    assert oversized(events(None, "{" * LIMIT, "[" + "1," * LIMIT + "1]"), LIMIT) == {}
    assert oversized(events(), LIMIT) == {}


def test_long_integers_take_eight_bytes():
    longs = {"_id": 1, "longs": [Int64(n) for n in range(5_000)]}
    size = len(bson.encode(longs))
    text = document_text(bson.encode(longs))
    assert oversized(events(text), size) == {}
    assert oversized(events(text), size - 1).keys() == {0}


def test_an_event_or_a_key_that_does_not_decode():
    good = event_value("c", {"_id": 1}, pipeline="p", database="d", collection="c", ts_ms=1)
    unknown_op = json.dumps(json.loads(good) | {"op": "z"}).encode()
    records = [
        (event_key(1), good),
        (event_key(1), b"no json"),
        (event_key(1), unknown_op),
        (b"no json", good),
        (b'{"other":1}', good),
        (None, good),
    ]
    keys, values = zip(*records, strict=True)
    found = undecodable(decode_envelopes(keys, values))
    event, key = ReasonCode.MALFORMED_EVENT, ReasonCode.UNDECODABLE_KEY
    assert {row: each.code for row, each in found.items()} == {1: event, 2: event, 3: key, 4: key, 5: key}
    assert all(each.message and each.policy is None and each.rule is None for each in found.values())


def test_a_document_that_the_decoder_refuses():
    assert malformed_documents({3: "not JSON"}) == {3: Rejection(ReasonCode.MALFORMED_DOCUMENT, "not JSON")}
