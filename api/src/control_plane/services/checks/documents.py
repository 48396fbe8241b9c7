"""What is in the source: whether the captured collections are there, how large documents are, and what `_id` is."""

import difflib
from collections.abc import Mapping
from typing import Any, Final

from bson import CodecOptions
from bson.raw_bson import RawBSONDocument
from pymongo.collection import Collection

from cdc_shared.models.common import PipelineSpec
from cdc_shared.models.data_quality import MEBIBYTE
from control_plane.services.checks.check import Finding, failed, ok, skipped, some, warning
from control_plane.services.checks.source_probe import SourceProbe

SAMPLED_COLLECTIONS: Final = 20
SAMPLED_DOCUMENTS: Final = 100
ANSWER_TIMEOUT_MS: Final = 3000
JSON_GROWTH: Final = 2
"""A document's JSON text takes about twice the bytes of its BSON where it holds numbers and dates; text the same."""
COMPARED_COLLECTIONS: Final = 200
RAW: Final = CodecOptions(document_class=RawBSONDocument)

FIRST_ELEMENT: Final = 4
"""Where the type of a BSON document's first element is, behind the document's length."""
NUMBERS: Final = frozenset({0x01, 0x10, 0x12, 0x13})
STRINGS: Final = frozenset({0x02, 0x0E})
NAMES: Final = {
    0x03: "objects",
    0x05: "binary values",
    0x07: "ObjectIds",
    0x08: "booleans",
    0x09: "dates",
    0x0A: "null",
    0x11: "timestamps",
}


def collections(probe: SourceProbe, spec: PipelineSpec) -> Finding:
    """The collections that the spec names are there, are no views, and keep pre-images where the spec needs them."""
    found = probe.collections
    views = sorted(name for name, told in found.items() if told.get("type", "collection") != "collection")
    if views:
        return failed(f"{some(views)}: not ordinary collections, so they have no changes: take them off the list")
    if "pre_image" in spec.source.capture_mode:
        without = sorted(name for name, told in found.items() if not _keeps_pre_images(told))
        if without:
            return failed(
                f"capture_mode {spec.source.capture_mode} needs pre-images, which {some(without)} does not keep: run "
                "collMod with changeStreamPreAndPostImages: {enabled: true}, or take another capture_mode"
            )
    absent = [name for name in spec.source.include_collections if name not in found]
    if absent:
        return warning(f"not in the source yet: {some(absent)}{_did_you_mean(absent[0], probe)}")
    if not found:
        return warning(f"database {spec.source.database} has no collection to capture yet; correct its name if it has")
    return ok(f"{len(found)} collection{'s' * (len(found) != 1)}: {some(sorted(found))}")


def document_sizes(probe: SourceProbe, spec: PipelineSpec) -> Finding:
    """The largest document of a sample, against what the pipeline takes."""
    names = sorted(probe.collections)[:SAMPLED_COLLECTIONS]
    largest, where, seen = 0, "", 0
    for name in names:
        with probe.reading(f"sample {name}") as database:
            sizes = [each["size"] for each in database[name].aggregate(_SIZES, maxTimeMS=ANSWER_TIMEOUT_MS)]
        seen += len(sizes)
        if max(sizes, default=0) > largest:
            largest, where = max(sizes), name
    if not seen:
        return skipped("there are no documents yet")
    text = f"the largest of {seen} sampled documents has {_size(largest)} ({where})"
    limit = spec.quality.dirty_data.max_document_size
    if largest * JSON_GROWTH > limit:
        return warning(
            f"{text}; as JSON it may pass quality.dirty_data.max_document_size ({_size(limit)}), above which one "
            f"falls under the policy {spec.quality.dirty_data.policy}: raise it (16 MiB at most) or split the documents"
        )
    return ok(text)


def id_types(probe: SourceProbe) -> Finding:
    """Whether every collection's `_id`s are of one kind.

    They are ordered by kind, so the smallest and the largest tell: two reads of the index, however large it is.
    """
    names = sorted(probe.collections)
    mixed = []
    for name in names[:COMPARED_COLLECTIONS]:
        with probe.reading(f"look at the _ids of {name}") as database:
            collection = database.with_options(codec_options=RAW)[name]
            smallest, largest = _kind(collection, 1), _kind(collection, -1)
        if smallest != largest:
            mixed.append(f"{name} ({smallest} and {largest})")
    if mixed:
        return warning(
            f"_ids of several kinds: {some(mixed)}. Changes replicate as usual, but an incremental snapshot would pass "
            "over documents, so a resync takes a whole new snapshot"
        )
    if len(names) > COMPARED_COLLECTIONS:
        return ok(f"the _ids of each of the first {COMPARED_COLLECTIONS} collections are of one kind")
    return ok("the _ids of each collection are of one kind")


_SIZES: Final[list[dict[str, Any]]] = [
    {"$sample": {"size": SAMPLED_DOCUMENTS}},
    {"$project": {"_id": 0, "size": {"$bsonSize": "$$ROOT"}}},
]


def _kind(collection: Collection[RawBSONDocument], order: int) -> str | None:
    found = collection.find_one(projection={"_id": 1}, sort=[("_id", order)], max_time_ms=ANSWER_TIMEOUT_MS)
    if found is None:
        return None
    code = found.raw[FIRST_ELEMENT]
    return "numbers" if code in NUMBERS else "strings" if code in STRINGS else NAMES.get(code, f"BSON type {code}")


def _keeps_pre_images(told: Mapping[str, Any]) -> bool:
    return bool(told.get("options", {}).get("changeStreamPreAndPostImages", {}).get("enabled"))


def _did_you_mean(name: str, probe: SourceProbe) -> str:
    with probe.reading("list the collections") as database:
        known = database.list_collection_names()
    close = difflib.get_close_matches(name, known, n=1)
    if close:
        return f"; did you mean {close[0]}?"
    return "; each gets its table with its first document, or correct the name"


def _size(count: int) -> str:
    return f"{count / MEBIBYTE:.1f} MiB" if count >= MEBIBYTE // 10 else f"{count:,} bytes"
