"""Documents of odd shapes: wide, deep, large, oddly named, used as maps, mixed. Each comes back equal."""

from __future__ import annotations

import json
import random
from typing import Any

import bson
import pytest
from bson import Binary, ObjectId
from delta_reading import READERS, open_table
from mongo_pipeline import MongoPipeline

from cdc_shared.documents import canonical_document, key_text

pytestmark = pytest.mark.e2e

FIELDS = 10_000
MAX_STRUCT_FIELDS = 1_000
MAP_ENTRIES = 1_500
LEVELS = 99
"""Below the document itself: MongoDB takes 100."""
LARGE_BYTES = 15_900_000
"""MongoDB takes 16 MiB, and so much in a change event, with what that says beside the document."""
TIMEOUT_S = 90.0


def test_a_document_of_ten_thousand_fields(shared_pipeline: MongoPipeline) -> None:
    wide = {"_id": 1, **{f"field {n}": n / 2 for n in range(FIELDS)}}
    pair = [{"_id": 2, "field 0": "another type", "field 9999": 1.5, "new": True}, {"_id": 3, "field 1": 2.0}]
    shared_pipeline.db["wide"].insert_one(wide)
    shared_pipeline.await_equal("wide", TIMEOUT_S)
    shared_pipeline.db["wide"].insert_many(pair)
    shared_pipeline.db["wide"].update_one({"_id": 1}, {"$set": {"field 5000": "set", "field 9": None}})
    expect(shared_pipeline, "wide", [wide | {"field 5000": "set", "field 9": None}, *pair])
    assert len(own_columns(shared_pipeline, "wide")) == MAX_STRUCT_FIELDS, "the other fields are in _cdc_rescued"


def test_shapes_that_no_table_has(shared_pipeline: MongoPipeline) -> None:
    documents = [{"_id": name, **document} for name, document in odd_documents().items()]
    collection = shared_pipeline.db["odd"]
    collection.insert_many(documents)
    expect(shared_pipeline, "odd", documents)

    first, second, *_, last = documents
    collection.replace_one({"_id": first["_id"]}, {key: value for key, value in second.items() if key != "_id"})
    collection.update_one({"_id": second["_id"]}, {"$set": {"added": [[{"a": [None, "x"]}], 2.5]}})
    collection.delete_one({"_id": last["_id"]})
    changed = [second | {"_id": first["_id"]}, second | {"added": [[{"a": [None, "x"]}], 2.5]}]
    expect(shared_pipeline, "odd", [*changed, *documents[2:-1]])
    assert own_columns(shared_pipeline, "odd")["ids"] == "string", "an object that is used as a map is JSON"


def test_a_document_as_large_as_mongodb_sends(shared_pipeline: MongoPipeline, rng: random.Random) -> None:
    """Its text in the event is longer than 16 MiB; what is limited is its size in BSON."""
    half = LARGE_BYTES // 2
    text = "".join(rng.choices("abcdefgh ijklmn", k=1000)) * (half // 1000)
    document = {"_id": 1, "bytes": Binary(rng.randbytes(half - 1000)), "text": text}
    assert 0 < LARGE_BYTES - len(bson.encode(document)) < 1000
    shared_pipeline.db["large"].insert_one(document)
    expect(shared_pipeline, "large", [document])
    shared_pipeline.db["large"].update_one({"_id": 1}, {"$set": {"n": 1}})
    updated = {key_text(1): canonical_document(document | {"n": 1})}
    shared_pipeline.await_rows("large", lambda: updated, TIMEOUT_S)


def odd_documents() -> dict[str, dict[str, Any]]:
    """Documents by what is odd about them."""
    return {
        "deep objects": {"deep": nested({"leaf": 1.5}, LEVELS - 1)},
        "deep arrays": {"deep_array": nested_array("leaf", LEVELS)},
        "deep both": {"deep": nested(nested_array({"leaf": True}, LEVELS // 2), LEVELS // 2 - 1)},
        "names": {"a.b": 1, "a b": 2, "$price": 3, "": 4, " ": 5, "a\tb": 6, "é": 7, "a`b": 8, '"': 9, "x/y~z": 10},
        "names that differ in case": {"name": 1, "Name": "2", "NAME": 3.5, "nAme": {"Name": 1, "name": 2}},
        "names of ours": {"_cdc_key": "x", "_cdc_rescued": '{"/a":1}', "_CDC_Offset": 7, "_cdc_": None},
        "names within": {"within": {"a.b": {"$x": [{"": {"a b": 1, "a.b": 2}}]}}},
        "a map": {"ids": {str(ObjectId(f"{n:024x}")): {"n": n} for n in range(MAP_ENTRIES)}},
        "another map": {"ids": {f"user-{n}": {"n": str(n)} for n in range(10)}},
        "mixed arrays": {"mixed": [1, "1", 1.5, True, None, {"a": 1}, [1, ["x", {}]], ObjectId(f"{7:024x}")]},
        "arrays of arrays": {"arrays": [[1, 2], [], [None], [[3]]]},
        "more arrays of arrays": {"arrays": [[1, 2], [3]]},
        "objects of many shapes": {"shapes": [{"a": 1}, {"a": "x"}, {"b": []}, {"a": {"c": 1}}, {}]},
        "an empty object": {"empty": {}, "empty_array": [], "null": None},
        "filled": {"empty": {"now": 1}, "empty_array": [{"now": 2}], "null": "now"},
        "nothing": {},
    }


def nested(value: Any, levels: int) -> dict[str, Any]:
    """The value within so many objects."""
    document: dict[str, Any] = {"n": value}
    for level in range(1, levels):
        document = {"n": document, "level": level}
    return document


def nested_array(value: Any, levels: int) -> list[Any]:
    """The value within so many arrays."""
    array = [value]
    for _ in range(1, levels):
        array = [array]
    return array


def own_columns(pipeline: MongoPipeline, collection: str) -> dict[str, Any]:
    """The table's columns that are the collection's fields."""
    table = open_table(pipeline.table_url(collection), pipeline.stack.object_store)
    assert table is not None
    columns = {each["name"]: each["type"] for each in json.loads(table.schema().to_json())["fields"]}
    return {name: type_ for name, type_ in columns.items() if not name.startswith("_cdc_")}


def expect(pipeline: MongoPipeline, collection: str, documents: list[dict[str, Any]]) -> None:
    """Wait until the table holds these documents, which the source holds too, and every reader says so."""
    expected = {key_text(each["_id"]): canonical_document(each) for each in documents}
    pipeline.await_rows(collection, lambda: expected, TIMEOUT_S)
    assert pipeline.documents(collection) == expected, "what the source holds"
    for name, read in READERS.items():
        assert pipeline.rows(collection, read) == expected, name
