"""How a collection is cut into pieces that are read, kept and repeated one by one: ranges of `_id`.

MongoDB orders `_id`s by type first (a *bracket*: all numbers, all strings, …), and compares only within a bracket:
`{_id: {$gt: 5}}` finds no string. So a chunk is a range of one bracket, or several whole brackets; the chunks of a plan
hold every `_id` that there can be exactly once, whatever types come up while they are read. The source's manual has the
order: https://www.mongodb.com/docs/manual/reference/bson-type-comparison-order/.

The borders come from a random sample that the source itself sorts, so they are right under any collation, and chunks
are only about as large as asked for.
"""

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any, Final

import bson
import msgspec
from bson import CodecOptions
from bson.raw_bson import RawBSONDocument
from pymongo import ReadPreference
from pymongo.client_session import ClientSession

from cdc_shared.errors import Fatal
from cdc_shared.models.collection import Collection
from cdc_shared.source.mongodb_source import MongodbSource
from reconciliation.sources.raw_ids import document_of, id_only, is_nan, renamed_id

TARGET_DOCUMENTS: Final = 100_000
"""About four seconds of one reader's work; a part of so many hashes has some 6 MB."""
SAMPLES_A_CHUNK: Final = 10
MAX_SAMPLES: Final = 50_000
PLAN_TIMEOUT_S: Final = 100.0

_RAW: Final = CodecOptions[RawBSONDocument](document_class=RawBSONDocument)
_NAN: Final = float("nan")
_LEAST_NUMBER: Final = bson.encode({"_id": float("-inf")})


class Bracket(StrEnum):
    """Types of `_id` that are compared with each other, in the order in which the source has them.

    Left out are types that no `_id` can have: array, regex, undefined.
    """

    MIN_KEY = "minKey"
    NULL = "null"
    NUMBER = "number"
    STRING = "string"
    OBJECT = "object"
    BINARY = "binData"
    OBJECT_ID = "objectId"
    BOOLEAN = "bool"
    DATE = "date"
    TIMESTAMP = "timestamp"
    DB_POINTER = "dbPointer"
    CODE = "javascript"
    CODE_WITH_SCOPE = "javascriptWithScope"
    MAX_KEY = "maxKey"


ALL: Final = tuple(Bracket)
_TYPE_NAMES: Final[Mapping[Bracket, list[str]]] = {
    bracket: ["string", "symbol"] if bracket is Bracket.STRING else [bracket.value] for bracket in Bracket
}
_BRACKET_OF: Final[Mapping[int, Bracket]] = {  # by BSON's type numbers
    0xFF: Bracket.MIN_KEY,
    0x0A: Bracket.NULL,
    0x01: Bracket.NUMBER,
    0x10: Bracket.NUMBER,
    0x12: Bracket.NUMBER,
    0x13: Bracket.NUMBER,
    0x02: Bracket.STRING,
    0x0E: Bracket.STRING,
    0x03: Bracket.OBJECT,
    0x05: Bracket.BINARY,
    0x07: Bracket.OBJECT_ID,
    0x08: Bracket.BOOLEAN,
    0x09: Bracket.DATE,
    0x11: Bracket.TIMESTAMP,
    0x0C: Bracket.DB_POINTER,
    0x0D: Bracket.CODE,
    0x0F: Bracket.CODE_WITH_SCOPE,
    0x7F: Bracket.MAX_KEY,
}


class Chunk(msgspec.Struct, frozen=True):
    """One piece of a collection. `msgspec.to_builtins` and `msgspec.convert` keep it as JSON.

    Attributes:
        number: in its plan, from 0.
        brackets: several are whole ones; a border belongs to the only one.
        lower, upper: BSON of a document with nothing but the `_id`; `lower` is in the chunk, `upper` is not. None is
            the bracket's end.
        documents: about how many; None where nothing tells.
    """

    number: int
    brackets: tuple[Bracket, ...]
    lower: bytes | None = None
    upper: bytes | None = None
    documents: int | None = None

    def filter(self, after: bytes | None = None) -> dict[str, Any]:
        """Return the query for the chunk's documents; with `after`, for those that follow this `_id` in it.

        `after` is BSON that begins with the `_id`, as of a document.
        """
        if after is None:
            return {} if self.brackets == ALL else self._whole_query()
        value = id_only(after)
        bracket = bracket_of(value)
        later = self.brackets[self.brackets.index(bracket) + 1 :]
        queries = [_range(bracket, value, self.upper, "$gt"), *([_typed(later)] if later else [])]
        return _either(queries)

    def _whole_query(self) -> dict[str, Any]:
        if self.lower is None and self.upper is None:
            return _typed(self.brackets)
        only = self.brackets[0]
        queries = [_range(only, self.lower, self.upper, "$gte")]
        if only is Bracket.NUMBER and self.lower is None:
            queries.insert(0, {"_id": _NAN})  # the least number, and yet not `$lt` any
        return _either(queries)


def plan_chunks(source: MongodbSource, collection: Collection, target_documents: int = TARGET_DOCUMENTS) -> list[Chunk]:
    """Cut the collection, as it is now, into chunks of about so many documents; an absent one is one empty chunk.

    Asks the source for a number and, of a large collection, for a sample, which it takes from random places of the
    collection. Raises `Transient` and `Fatal` as `MongodbSource.asking` does.
    """
    with source.asking(f"plan the reading of {collection.database}.{collection.name}") as session:
        documents = _estimated_count(session, collection)
        wanted = documents // target_documents
        if wanted < 2:
            return [Chunk(0, ALL, documents=documents)]
        samples = _sampled_ids(session, collection, min(MAX_SAMPLES, wanted * SAMPLES_A_CHUNK))
    return chunks_between(samples, documents, wanted)


def chunks_between(samples: Sequence[bytes], documents: int, wanted: int) -> list[Chunk]:
    """Return at most about `wanted` chunks whose borders are among `samples`, sorted `_id`s as of `Chunk.lower`.

    A bracket with too few samples for two chunks goes with the other such ones into one chunk, which also has the
    brackets that are not among the samples at all.
    """
    by_bracket: dict[Bracket, list[bytes]] = {}
    for sample in dict.fromkeys(samples):
        by_bracket.setdefault(bracket_of(sample), []).append(sample)
    documents_a_sample = documents / max(1, len(samples))
    step = max(1, len(samples) // wanted)
    chunks: list[Chunk] = []
    rest: list[Bracket] = []
    for bracket in ALL:
        ids = [each for each in by_bracket.get(bracket, []) if not is_nan(each)]
        borders = ids[step::step]
        if not borders:
            rest.append(bracket)
            continue
        about = round(len(ids) * documents_a_sample / (len(borders) + 1))
        for lower, upper in zip([None, *borders], [*borders, None], strict=True):
            chunks.append(Chunk(len(chunks), (bracket,), lower, upper, about))
    few = sum(len(by_bracket.get(bracket, [])) for bracket in rest)
    chunks.append(Chunk(len(chunks), tuple(rest), documents=round(few * documents_a_sample)))
    return chunks


def bracket_of(id_document: bytes) -> Bracket:
    """Return the bracket of an `_id`, as of `id_only`. Raises Fatal for a type that no `_id` can have."""
    bracket = _BRACKET_OF.get(id_document[4])
    if bracket is None:
        raise Fatal(f"the source has an _id of BSON type {id_document[4]}, which MongoDB does not allow")
    return bracket


def _either(queries: list[dict[str, Any]]) -> dict[str, Any]:
    return queries[0] if len(queries) == 1 else {"$or": queries}


def _typed(brackets: Sequence[Bracket]) -> dict[str, Any]:
    return {"_id": {"$type": [name for bracket in brackets for name in _TYPE_NAMES[bracket]]}}


def _range(bracket: Bracket, lower: bytes | None, upper: bytes | None, above: str) -> dict[str, Any]:
    """The query for a part of one bracket; `above` is `$gt` or `$gte`."""
    if lower is not None and is_nan(lower):  # which `$gt` finds nothing above of, and all other numbers are
        lower, above = _LEAST_NUMBER, "$gte"
    members = [
        renamed_id(border, operator) for border, operator in ((lower, above), (upper, "$lt")) if border is not None
    ]
    typed = bson.encode({"$type": _TYPE_NAMES[bracket]})[4:-1]
    return {"_id": RawBSONDocument(document_of(b"".join([*members, typed])))}


def _estimated_count(session: ClientSession, collection: Collection) -> int:
    found = session.client[collection.database][collection.name]
    return int(found.estimated_document_count(maxTimeMS=int(PLAN_TIMEOUT_S * 1000)))


def _sampled_ids(session: ClientSession, collection: Collection, size: int) -> list[bytes]:
    """Random `_id`s, ascending as the source has them; an `_id` may be there twice."""
    documents = session.client[collection.database].get_collection(
        collection.name, codec_options=_RAW, read_preference=ReadPreference.SECONDARY_PREFERRED
    )
    found = documents.aggregate(
        [{"$sample": {"size": size}}, {"$project": {"_id": 1}}, {"$sort": {"_id": 1}}],
        session=session,
        maxTimeMS=int(PLAN_TIMEOUT_S * 1000),
    )
    return [id_only(bytes(each.raw)) for each in found]
