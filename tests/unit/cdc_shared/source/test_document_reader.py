"""Documents are found by their exact keys, and what cannot be decided is refused, never taken for gone."""

from __future__ import annotations

import struct
from typing import Any

import bson
import pytest
from bson import Binary, DatetimeMS, Decimal128, Int64, MaxKey, ObjectId
from fake_source import FakeSource

from cdc_shared.documents import canonical_document, key_text
from cdc_shared.models.collection import Collection
from cdc_shared.source import document_reader
from cdc_shared.source.document_reader import read_documents
from cdc_shared.source.errors import RequestRefused

pytestmark = pytest.mark.unit

THINGS = Collection("db", "things")
IDS: list[Any] = [
    ObjectId(),
    "text",
    "日本 \u200b😀",
    7,
    Int64(2**53 + 1),
    1.5,
    True,
    None,
    DatetimeMS(1704067200123),
    DatetimeMS(-1),
    Decimal128("1.50"),
    Binary(b"abc", 4),
    {"a": 1, "b": ["x", {"c": 2.5}]},
    MaxKey(),
]


def source_of(*documents: Any) -> FakeSource:
    source = FakeSource()
    source.documents = {"things": documents}
    return source


def test_each_type_of_id_is_found_by_its_key_text() -> None:
    documents = [{"_id": each, "n": n} for n, each in enumerate(IDS)]
    keys = [key_text(each) for each in IDS]
    answer = read_documents(source_of(*documents), THINGS, [*keys, key_text("absent")])  # type: ignore[arg-type]
    assert answer.refused == {}
    assert answer.read.pop(key_text("absent")).text is None
    assert list(answer.read) == keys
    for key, document in zip(keys, documents, strict=True):
        read = answer.read[key]
        assert canonical_document(read.text or "") == canonical_document(document)
        assert read.source_ts_ms == FakeSource.TIME_S * 1000


def test_a_number_of_another_type_is_another_key_unless_debezium_spells_it_the_same() -> None:
    """MongoDB finds 5.0 for 5: its row has the key 5.0."""
    answer = read_documents(source_of({"_id": 5.0}, {"_id": Int64(8)}), THINGS, ["5", "8", "5.0"])  # type: ignore[arg-type]
    assert answer.read["5"].text is None
    assert answer.read["5.0"].text == '{"_id": 5.0}'
    assert answer.read["8"].text == '{"_id": {"$numberLong": "8"}}'


@pytest.mark.parametrize(
    "key",
    [
        "[1]",
        '{"a": {"$undefined": true}}',
        '{"a": {"$regularExpression": {"pattern": "a","options": "im"}}}',
        '{"a": 1,"a": 2}',
        '"\ufffd"',
        '{"$oid":"64bb5a801a2b3c4d5e000000"}',  # not as Debezium spells it
        '{"$date": 5}',
        "1E+3",
        "not json",
        '{"a\\u0000": 1}',
    ],
)
def test_a_key_that_no_id_can_be_told_from_is_refused(key: str) -> None:
    source = source_of()
    answer = read_documents(source, THINGS, [key])  # type: ignore[arg-type]
    assert list(answer.refused) == [key]
    assert answer.read == {}
    assert source.queries == 0


def test_a_document_that_cannot_be_read_is_refused() -> None:
    body = b"\x10_id\0\x01\0\0\0" + b"\x02s\0" + struct.pack("<i", 2) + b"\xff\0"
    raw = struct.pack("<i", len(body) + 5) + body + b"\0"
    assert bson.decode(bson.encode({"_id": 1}))  # the fake compares ids as the package decodes them

    class Damaged(FakeSource):
        def _find(self, name: str, query: Any) -> Any:
            return [bson.raw_bson.RawBSONDocument(raw)]

    answer = read_documents(Damaged(), THINGS, ["1", "2"])  # type: ignore[arg-type]
    assert answer.refused == {"1": "the source's document is not a BSON document"}
    assert answer.read["2"].text is None


class Choosy(FakeSource):
    """Does not take the id 3 in a query, or none at all."""

    takes_any = True

    def _find(self, name: str, query: Any) -> Any:
        if 3 in query["_id"]["$in"] or not self.takes_any:
            raise RequestRefused("no", "BadValue")
        return super()._find(name, query)


def test_a_key_that_the_source_does_not_take_is_refused_alone() -> None:
    source = Choosy()
    source.documents = {"things": [{"_id": n} for n in range(5)]}
    answer = read_documents(source, THINGS, ["1", "3", "4", "9"])  # type: ignore[arg-type]
    assert answer.refused == {"3": "the source refuses to look for it: BadValue"}
    assert {key: read.text for key, read in answer.read.items()} == {"1": '{"_id": 1}', "4": '{"_id": 4}', "9": None}
    source.takes_any = False
    with pytest.raises(RequestRefused):
        read_documents(source, THINGS, ["1", "4"])  # type: ignore[arg-type]


def test_many_keys_are_read_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(document_reader, "CHUNK_KEYS", 10)
    source = source_of(*({"_id": i} for i in range(35)))
    between: list[int] = []
    keys = [str(i) for i in [*range(35), *range(35)]]
    answer = read_documents(source, THINGS, keys, lambda: between.append(source.queries))  # type: ignore[arg-type]
    assert source.queries == 4
    assert between == [1, 2, 3]
    assert [read.text for read in answer.read.values()] == [f'{{"_id": {i}}}' for i in range(35)]
    monkeypatch.setattr(document_reader, "CHUNK_BYTES", 3)
    assert len(read_documents(source, THINGS, ["100", "1", "2", "300"]).read) == 4  # type: ignore[arg-type]
    assert source.queries == 7
