"""One pipeline for every test of types: starting a connector costs more than the tests do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import pytest
from mongo_pipeline import MongoPipeline
from stack_endpoints import Stack
from trial_pipeline import trial_name

from cdc_shared.models.data_quality import MONGODB_MAX_DOCUMENT_BYTES


@pytest.fixture(scope="session")
def shared_pipeline(stack: Stack, tests_root: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[MongoPipeline]:
    """A running pipeline that keeps histories and takes documents of any size: a collection for each test."""
    name = trial_name("shared")
    with closing(MongoPipeline(stack, name, tests_root, tmp_path_factory.mktemp(name))) as pipeline:
        quality = pipeline.spec.quality
        every_size = quality.dirty_data.model_copy(update={"max_document_size": MONGODB_MAX_DOCUMENT_BYTES})
        pipeline.spec = pipeline.spec.model_copy(
            update={
                "sink": pipeline.spec.sink.model_copy(update={"history": True}),
                "quality": quality.model_copy(update={"dirty_data": every_size}),
            }
        )
        pipeline.start()
        yield pipeline
