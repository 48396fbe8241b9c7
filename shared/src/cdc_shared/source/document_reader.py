"""Documents of the source by their keys, as they are now."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import bson
from bson import CodecOptions
from bson.errors import BSONError
from bson.raw_bson import RawBSONDocument
from pymongo import ReadPreference
from pymongo.read_concern import ReadConcern

from cdc_shared.documents import InvalidBson, InvalidDocument, document_key, document_text, key_value
from cdc_shared.models.collection import Collection
from cdc_shared.source.errors import RequestRefused
from cdc_shared.source.mongodb_source import MongodbSource, operation_time_ms

CHUNK_KEYS: Final = 1_000
CHUNK_BYTES: Final = 4 * 1024 * 1024
"""Of key texts: a query may have 16 MB, and an `_id` takes no more in BSON than three times its text."""
MAX_TIME_MS: Final = 15_000

# Linearizable, not majority: a primary that was replaced and has not noticed yet still answers majority reads, with
# documents older than events that have been applied, and nothing would come later to put that right.
_NEWEST: Final = ReadConcern("linearizable")
_RAW: Final = CodecOptions[RawBSONDocument](document_class=RawBSONDocument)


@dataclass(frozen=True, slots=True)
class DocumentRead:
    """`text` is the document in Debezium's dialect and `raw` its BSON, None when there is none; `source_ts_ms` the
    source's time of the read.
    """

    text: str | None
    source_ts_ms: int
    raw: bytes | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class DocumentsRead:
    """What the source says of each key: one entry in `read`, or in `refused` with a reason free of content."""

    read: dict[str, DocumentRead] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)


def read_documents(
    source: MongodbSource, collection: Collection, keys: Iterable[str], between: Callable[[], None] = lambda: None
) -> DocumentsRead:
    """Read the documents with these key texts from the primary, a chunk a query; `between` is called between queries.

    What is read reflects every write that the source acknowledged to anybody before the call, so that whatever is not
    in it comes later in the stream of changes. Raises `Transient` and `Fatal` as `MongodbSource.asking` does.
    """
    answer = DocumentsRead()
    ids: dict[str, Any] = {}
    for key in dict.fromkeys(keys):
        try:
            ids[key] = key_value(key)
            bson.encode({"_id": ids[key]})
        except (InvalidDocument, BSONError, ValueError) as error:
            ids.pop(key, None)
            answer.refused[key] = str(error) if isinstance(error, InvalidDocument) else "a key that BSON cannot hold"
    for number, chunk in enumerate(_chunks(ids)):
        if number:
            between()
        _read_chunk(source, collection, {key: ids[key] for key in chunk}, answer)
    return answer


def _read_chunk(source: MongodbSource, collection: Collection, ids: dict[str, Any], answer: DocumentsRead) -> None:
    try:
        found, source_ts_ms = _find(source, collection, list(ids.values()))
    except RequestRefused as error:
        _read_one_by_one(source, collection, ids, answer, error)
        return
    for key in ids:
        answer.read[key] = DocumentRead(None, source_ts_ms)
    for raw in found:
        key = document_key(raw)
        if key not in ids:  # equal as numbers are, but another key: 5.0 for 5
            continue
        try:
            answer.read[key] = DocumentRead(document_text(raw), source_ts_ms, raw)
        except InvalidBson as error:
            del answer.read[key]
            answer.refused[key] = f"the source's document is {error}"


def _read_one_by_one(
    source: MongodbSource, collection: Collection, ids: dict[str, Any], answer: DocumentsRead, error: RequestRefused
) -> None:
    """Find the key that the source does not take; when it takes none of several, the fault is not a key's."""
    if len(ids) == 1:
        answer.refused.update(dict.fromkeys(ids, f"the source refuses to look for it: {error.name}"))
        return
    for key, value in ids.items():
        _read_chunk(source, collection, {key: value}, answer)
    if not answer.read.keys() & ids.keys():
        raise error


def _find(source: MongodbSource, collection: Collection, ids: list[Any]) -> tuple[list[bytes], int]:
    """The raw documents with these ids, and the source's time of the read in ms."""
    with source.asking(f"read documents of {collection.database}.{collection.name}") as session:
        documents: Any = source.database(collection.database).get_collection(
            collection.name, codec_options=_RAW, read_preference=ReadPreference.PRIMARY, read_concern=_NEWEST
        )
        cursor = documents.find({"_id": {"$in": ids}}, session=session, max_time_ms=MAX_TIME_MS)
        # Of a large reply the driver gives memoryviews, whatever its types say.
        return [bytes(each.raw) for each in cursor], operation_time_ms(session)


def _chunks(keys: Iterable[str]) -> Iterator[list[str]]:
    """Cut at `CHUNK_KEYS` and, but for a single key, at `CHUNK_BYTES`."""
    chunk: list[str] = []
    size = 0
    for key in keys:
        length = len(key.encode())
        if chunk and (len(chunk) >= CHUNK_KEYS or size + length > CHUNK_BYTES):
            yield chunk
            chunk, size = [], 0
        chunk.append(key)
        size += length
    if chunk:
        yield chunk
