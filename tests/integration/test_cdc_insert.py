"""Inserts, as a snapshot and as a stream, in a table on the object store."""

from __future__ import annotations

import pytest
from topic_pipeline import TopicPipeline

pytestmark = pytest.mark.integration


def test_inserted_documents_are_rows(topic_pipeline: TopicPipeline) -> None:
    topic_pipeline.items.insert(*({"_id": n, "name": f"item {n}", "price": n / 4} for n in range(500)))
    topic_pipeline.items.await_equal()
