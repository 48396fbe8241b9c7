"""What the checks make of a source's collections and documents."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, cast

import bson
import pytest
from bson import Int64, ObjectId
from bson.binary import Binary
from bson.raw_bson import RawBSONDocument

from cdc_shared.models.common import PipelineSpec
from control_plane.models.preflight import CheckOutcome
from control_plane.services.checks import documents
from control_plane.services.checks.source_probe import SourceProbe

pytestmark = pytest.mark.unit

MEBIBYTE = 1024 * 1024


class FakeCollection:
    def __init__(self, ids: list[Any], sizes: list[int]) -> None:
        self._ids, self._sizes = ids, sizes

    def find_one(self, projection: dict[str, int], sort: list[tuple[str, int]], max_time_ms: int) -> Any:
        """The first or last of the ids, which are given in MongoDB's order."""
        assert projection == {"_id": 1}
        assert max_time_ms
        if not self._ids:
            return None
        return RawBSONDocument(bson.encode({"_id": self._ids[0 if sort == [("_id", 1)] else -1]}))

    def aggregate(self, _: Any, maxTimeMS: int) -> list[dict[str, int]]:  # noqa: N803 # pymongo's name
        assert maxTimeMS
        return [{"size": size} for size in self._sizes]


class FakeProbe:
    """A source with collections by name: what the server tells of each, its ids and its documents' sizes."""

    def __init__(self, **collections: Any) -> None:
        self.collections = {name: each.get("told", {"type": "collection"}) for name, each in collections.items()}
        self._content = {n: FakeCollection(c.get("ids", []), c.get("sizes", [])) for n, c in collections.items()}

    @contextmanager
    def reading(self, _: str) -> Iterator["FakeProbe"]:
        yield self

    def with_options(self, **_: Any) -> "FakeProbe":
        return self

    def __getitem__(self, name: str) -> FakeCollection:
        return self._content[name]

    def list_collection_names(self) -> list[str]:
        return [*self.collections, "invoices"]


def probe(**collections: Any) -> SourceProbe:
    return cast(SourceProbe, FakeProbe(**collections))


def spec(**source: Any) -> PipelineSpec:
    return PipelineSpec.model_validate({"name": "p", "source": {"connection": "env:X", "database": "shop"} | source})


def test_collections_that_are_there() -> None:
    finding = documents.collections(probe(a={}, b={}), spec())
    assert finding == (CheckOutcome.OK, "2 collections: a, b")


def test_a_view_has_no_changes() -> None:
    finding = documents.collections(probe(a={}, v={"told": {"type": "view"}}), spec())
    assert finding.outcome is CheckOutcome.FAILED
    assert finding.message.startswith("v: not ordinary")


def test_an_absent_collection_is_no_failure_and_the_nearest_name_is_told() -> None:
    close = documents.collections(probe(a={}), spec(include_collections=["a", "invoice"]))
    far = documents.collections(probe(a={}), spec(include_collections=["a", "xyz"]))
    assert close.outcome is far.outcome is CheckOutcome.WARNING
    assert "did you mean invoices?" in close.message
    assert "not in the source yet: xyz; each gets its table" in far.message
    assert documents.collections(probe(), spec()).outcome is CheckOutcome.WARNING


def test_pre_images_must_be_kept_where_they_are_captured() -> None:
    keeps = {"told": {"options": {"changeStreamPreAndPostImages": {"enabled": True}}}}
    needing = spec(capture_mode="change_streams_update_full_with_pre_image")
    assert documents.collections(probe(a=keeps), needing).outcome is CheckOutcome.OK
    finding = documents.collections(probe(a=keeps, b={}), needing)
    assert finding.outcome is CheckOutcome.FAILED
    assert "which b does not keep: run collMod" in finding.message


def test_sizes_are_held_against_the_pipelines_limit() -> None:
    assert documents.document_sizes(probe(a={"sizes": [10, 20]}, b={"sizes": [15]}), spec()) == (
        CheckOutcome.OK,
        "the largest of 3 sampled documents has 20 bytes (a)",
    )
    large = documents.document_sizes(probe(a={"sizes": [6 * MEBIBYTE]}), spec())
    assert large.outcome is CheckOutcome.WARNING
    assert "6.0 MiB (a)" in large.message
    assert "(10.0 MiB)" in large.message
    assert documents.document_sizes(probe(a={}), spec()).outcome is CheckOutcome.SKIPPED


@pytest.mark.parametrize(
    "ids",
    [
        [],
        [1],
        [1, Int64(2), 2.5],
        ["a", "b"],
        [ObjectId(), ObjectId()],
        [Binary(b"x", 4), b"y"],
        [datetime(1970, 1, 1, tzinfo=UTC), bson.DatetimeMS(2**60)],
    ],
)
def test_ids_of_one_kind(ids: list[Any]) -> None:
    assert documents.id_types(probe(a={"ids": ids})).outcome is CheckOutcome.OK


@pytest.mark.parametrize(
    ("ids", "kinds"),
    [
        ([1, "a"], "numbers and strings"),
        (["a", ObjectId()], "strings and ObjectIds"),
        ([None, {"a": 1}], "null and objects"),
        ([bson.MinKey(), 5], "BSON type 255 and numbers"),
    ],
)
def test_ids_of_several_kinds(ids: list[Any], kinds: str) -> None:
    finding = documents.id_types(probe(a={"ids": ids}, b={"ids": [1]}))
    assert finding.outcome is CheckOutcome.WARNING
    assert f"a ({kinds})" in finding.message
