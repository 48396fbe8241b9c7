"""Which collections are counted."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from cdc_shared.models.common import PipelineSpec, SourceSpec
from cdc_shared.source.collection_counts import count_documents

pytestmark = pytest.mark.unit


class Source:
    @contextmanager
    def asking(self, what: str) -> Iterator[None]:
        yield None

    def database(self, name: str) -> Source:
        assert name == "shop"
        return self

    def list_collections(self, session: Any) -> list[dict[str, str]]:
        kinds = {"a": "collection", "b": "collection", "a_view": "view", "system.views": "collection"}
        return [{"name": name, "type": kind} for name, kind in kinds.items()] + [
            {"name": "cdc_heartbeat"},
            {"name": "c"},
        ]

    def __getitem__(self, name: str) -> Any:
        return SimpleNamespace(estimated_document_count=lambda maxTimeMS: len(name) * 10)  # noqa: N803


@pytest.mark.parametrize(
    ("included", "counted"), [((), {"a": 10, "b": 10, "c": 10}), (("b", "gone"), {"b": 10})], ids=["all", "some"]
)
def test_collections_that_are_captured(included: tuple[str, ...], counted: dict[str, int]) -> None:
    source = SourceSpec(connection="env:X", database="shop", include_collections=included)
    assert count_documents(Source(), PipelineSpec(name="p", source=source)) == counted  # type: ignore[arg-type]
