"""Which tables `delta-writer remask` looks at: each of the pipeline's, by what they say and not by their names."""

from __future__ import annotations

from pathlib import Path

import pytest

from cdc_shared.delta.actions import Action
from cdc_shared.delta.log import DeltaLog
from cdc_shared.delta.table_metadata import HISTORY, TableIdentity, new_metadata, protocol_for
from cdc_shared.documents import DocumentSchema
from cdc_shared.errors import Fatal
from cdc_shared.models.common import HISTORY_SUFFIX, PipelineSpec
from cdc_shared.models.data_quality import QualitySpec
from cdc_shared.settings import ObjectStoreSettings
from cdc_shared.storage.object_store import open_store
from delta_writer.maintenance.remask_command import remask

pytestmark = pytest.mark.unit

STORES = ObjectStoreSettings()
MODE = "deletion_vectors"
RULES = QualitySpec.model_validate(
    {"version": 1, "transformation": [{"rule": "hash", "path": "/email", "key": "env:ANY"}]}
)


def pipeline(root: Path) -> PipelineSpec:
    return PipelineSpec.model_validate(
        {
            "name": "p",
            "source": {"connection": "env:SOURCE", "database": "db", "include_collections": ["things"]},
            "sink": {"root": str(root)},
            "quality": RULES.model_dump(),
        }
    )


def make_table(root: Path, directory: str, collection: str, mode: str = MODE) -> str:
    url = f"{root}/p/db/{directory}"
    metadata = new_metadata(TableIdentity("p", "db", collection), DocumentSchema(()), mode, 1, 1)
    DeltaLog(open_store(url, STORES)).append(0, [Action(protocol=protocol_for(mode)), Action(meta_data=metadata)])
    return url


def looked_at(root: Path, collection: str | None = None) -> list[str]:
    """The URLs of the tables that the command speaks of, in its order."""
    said: list[str] = []
    remask(
        STORES, pipeline(root), {1: RULES}, collection, said.append, now_ms=1, dry_run=True, confirm=lambda: None
    )  # fmt: skip
    assert said.pop() == "nothing was asked for (--dry-run)"
    return [line.partition(": ")[0] for line in said]


def test_a_collection_whose_name_ends_as_a_historys_does_is_looked_at(tmp_path: Path) -> None:
    urls = [make_table(tmp_path, name, name) for name in ("others", f"things{HISTORY_SUFFIX}")]
    assert looked_at(tmp_path) == urls
    assert looked_at(tmp_path, f"things{HISTORY_SUFFIX}") == urls[1:]


def test_the_table_of_another_collection_is_not_taken_for_a_history(tmp_path: Path) -> None:
    """It would get the masks of the collection that its name begins with."""
    url = make_table(tmp_path, "things", "things")
    make_table(tmp_path, f"things{HISTORY_SUFFIX}", f"things{HISTORY_SUFFIX}")
    assert looked_at(tmp_path, "things") == [url]


def test_a_collections_history_is_looked_at_with_it(tmp_path: Path) -> None:
    urls = [
        make_table(tmp_path, "things", "things"),
        make_table(tmp_path, f"things{HISTORY_SUFFIX}", "things", HISTORY),
    ]
    assert looked_at(tmp_path) == looked_at(tmp_path, "things") == urls


def test_a_collection_without_a_table_is_named_beside_those_that_have_one(tmp_path: Path) -> None:
    make_table(tmp_path, f"things{HISTORY_SUFFIX}", f"things{HISTORY_SUFFIX}")
    with pytest.raises(Fatal, match=f"no table of thing under .*; there are tables of: things{HISTORY_SUFFIX}"):
        looked_at(tmp_path, "thing")
