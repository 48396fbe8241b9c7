"""`delta-writer remask`: ask for the masks of the rules in force in all rows of a pipeline's tables.

The command decides nothing about rows and writes none: it leaves the request in the table's properties, and the writer
that maintains the table carries it out.
"""

from collections.abc import Callable, Mapping

from cdc_shared.delta.actions import Metadata
from cdc_shared.delta.snapshot import Snapshot
from cdc_shared.delta.table_location import TableLocation
from cdc_shared.delta.table_metadata import masked_by
from cdc_shared.errors import Fatal
from cdc_shared.models.common import PipelineSpec
from cdc_shared.models.data_quality import QualitySpec
from cdc_shared.settings import ObjectStoreSettings
from cdc_shared.storage.object_store import store_errors
from delta_writer.maintenance.remask import PURGE, REMASK, made_by, missing_masks, plain_in_table
from delta_writer.maintenance.requested_tables import ask, requested_tables

COPY_ON_WRITE = "copy_on_write"


def remask(
    stores: ObjectStoreSettings,
    spec: PipelineSpec,
    versions: Mapping[int, QualitySpec],
    collection: str | None,
    say: Callable[[str], None],
    *,
    now_ms: int,
    dry_run: bool,
    confirm: Callable[[], None],
) -> None:
    """Ask for it in the tables of one collection, or of all, histories too. `versions` are the pipeline's rules.

    Tables where nothing is plain, and those that were asked already, are left alone. `confirm` is called before the
    others are asked, and raises when that is not to be.

    Raises:
        Fatal: there is no such table, or one cannot be masked as it is stored. Then nothing was asked for.
    """
    target = spec.quality
    if target.version == 0:
        raise Fatal(f"pipeline {spec.name} has no rules: publish them first")
    if spec.sink.mode == COPY_ON_WRITE:
        raise Fatal(
            "tables with sink.mode copy_on_write are not rewritten: resync the collection, which brings every row "
            "under the rules in force; its older versions go when maintenance.retention_days have passed"
        )
    tables = requested_tables(stores, spec, collection)
    asks = []
    for name, location, state in tables:
        summary, is_to_ask = _summary(name, location, state, target, versions)
        say(summary)
        asks += [location] * is_to_ask
    if dry_run or not asks:
        say("nothing was asked for" + " (--dry-run)" * dry_run)
        return
    confirm()
    for location in asks:
        _ask(location, target.version, now_ms)
    say("asked for; the pipeline's writer does it in the background, within its budget: see its status and log")


def _summary(
    collection: str, location: TableLocation, state: Snapshot, target: QualitySpec, versions: Mapping[int, QualitySpec]
) -> tuple[str, bool]:
    """Say what would be done, and whether there is anything to ask for. Raises `NotMaskable`."""
    if state.metadata is None:
        raise ValueError("a table without metadata")
    asked = state.metadata.configuration
    if asked.get(REMASK) == str(target.version):
        return f"{location.url}: asked for already; its masking is under way or waits for the pipeline's writer", False
    if asked.get(PURGE) and masked_by(state.metadata) >= target.version:
        return f"{location.url}: its rows are masked; the older versions are being deleted", False
    files = list(state.files.values())
    with store_errors(f"reading {location.url}"):
        made = made_by(location.store, files)
        plain = plain_in_table(location.store, state.metadata, collection, target, versions, made)
    if not plain:
        return f"{location.url}: nothing is plain that version {target.version} of the rules masks", False
    missing = missing_masks(collection, target, versions, made)
    fields = sorted(
        {rule.path for version in made for rule in missing.by_version.get(version, ()) if hasattr(rule, "path")}
    )
    what = f"masks {', '.join(fields)} in {len(files)} data files" if fields else "no row lacks a mask"
    return (
        f"{location.url}: {what}; then version {state.version} and all before it are deleted for good: readers of "
        "older versions and time travel lose them"
    ), True


def _ask(location: TableLocation, version: int, now_ms: int) -> None:
    def wanted(metadata: Metadata) -> Mapping[str, str]:
        if masked_by(metadata) > version:
            raise Fatal(f"{location.url} has the masks of a later version of the rules: publish the pipeline again")
        return {REMASK: str(version)}

    ask(location, wanted, "CDC ASK FOR MASKS", {"rulesVersion": str(version)}, now_ms)
