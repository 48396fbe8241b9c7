"""`delta-writer schema-history`: what it says of a table's schema, for people and for programs."""

from collections.abc import Iterator
from datetime import UTC, datetime

import msgspec

from cdc_shared.delta.schema_history import SchemaChange, read_schema_history
from cdc_shared.delta.table_location import table_location
from cdc_shared.errors import Fatal
from cdc_shared.models.collection import Collection
from cdc_shared.models.common import PipelineSpec
from cdc_shared.settings import ObjectStoreSettings
from cdc_shared.storage.object_store import store_errors


def schema_history(
    stores: ObjectStoreSettings, spec: PipelineSpec, collection: str, *, history: bool, as_json: bool
) -> str:
    """Return the history of the schema of a collection's table, or with `history` of its history table.

    With `as_json` one JSON array of `SchemaChange`s, oldest first; otherwise text.

    Raises:
        Fatal: there is no such table, or none whose schema has a history.
    """
    location = table_location(spec, stores, Collection(spec.source.database, collection), history=history)
    with store_errors(f"reading {location.url}"):
        changes = read_schema_history(location.store)
    if not changes:
        raise Fatal(f"there is no table at {location.url}, or it was made before schemas had a history")
    if as_json:
        return msgspec.json.format(msgspec.json.encode(changes), indent=2).decode()
    return "\n".join(_lines(changes))


def _lines(changes: list[SchemaChange]) -> Iterator[str]:
    if changes[0].previous is not None:
        yield f"older changes are lost: somebody has deleted the record {changes[0].previous}"
    for change in changes:
        at = datetime.fromtimestamp(change.at_ms / 1000, UTC).isoformat(sep=" ", timespec="seconds")
        rules = f", rules version {change.rules_version}" * bool(change.rules_version)
        yield f"version {change.version}  {at}  {change.operation}{rules}"
        if not change.fields:
            yield "    no field is different"
        for each in change.fields:
            shown = "" if each.event is None else f"  first shown by {each.event}"
            detail = {
                "retyped": f"{each.was} → {each.type}",
                "renamed": f"{each.type}, was {each.was}",
                "altered": f"{each.note}",
            }
            yield f"    {each.change:<8} {each.path}  {detail.get(each.change, each.type)}{shown}"
