"""How many documents the source has, as it knows without counting them."""

from typing import Final

from cdc_shared.models.common import PipelineSpec
from cdc_shared.source.mongodb_source import MongodbSource

MAX_TIME_MS: Final = 5_000


def count_documents(source: MongodbSource, spec: PipelineSpec) -> dict[str, int]:
    """Return about how many documents each collection has that the spec captures, by name without the database.

    From the collections' metadata: cheap, and after an unclean shutdown of the source not exact. Raises `Transient` and
    `Fatal` as `MongodbSource.asking` does.
    """
    name = spec.source.database
    with source.asking(f"count the documents of {name}") as session:
        database = source.database(name)
        found = [
            str(each["name"])
            for each in database.list_collections(session=session)
            if each.get("type", "collection") == "collection" and not str(each["name"]).startswith("system.")
        ]
        return {
            each: int(database[each].estimated_document_count(maxTimeMS=MAX_TIME_MS))
            for each in found
            if spec.source.captures(each)
        }
