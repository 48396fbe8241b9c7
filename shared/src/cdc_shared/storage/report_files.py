"""Reports of reconciliation in the lake: `<root>/<pipeline>/_reconciliation/<database>/<collection>/<run id>.<format>`.

No table lies there: no database of that name is captured, and what looks for tables passes it over. The reconciliation
service writes the files, the control plane reads them, and they go when the pipeline's tables are dropped.
"""

from collections.abc import Iterator
from contextlib import suppress
from typing import Final, Literal, get_args

import obstore

from cdc_shared.errors import Fatal
from cdc_shared.models.collection import Collection
from cdc_shared.models.common import RECONCILIATION_DIRECTORY
from cdc_shared.settings import ObjectStoreSettings
from cdc_shared.storage.object_store import open_store, path_segment, store_errors

ReportFormat = Literal["json", "csv", "html"]
REPORT_FORMATS: Final[tuple[ReportFormat, ...]] = get_args(ReportFormat)
CONTENT_TYPES: Final[dict[ReportFormat, str]] = {
    "json": "application/json",
    "csv": "text/csv; charset=utf-8",
    "html": "text/html; charset=utf-8",
}


class ReportGone(Fatal):
    """There is no such file: it was never written, or its retention is over."""


def reports_directory(root: str, pipeline: str) -> str:
    """Return where all reports of the pipeline are; `root` is where its tables are."""
    return f"{root.rstrip('/')}/{path_segment(pipeline)}/{RECONCILIATION_DIRECTORY}"


def report_url(root: str, pipeline: str, collection: Collection, run_id: str) -> str:
    """Return the URL of a run's report without its ending: `lake_path` of table `reconciliation_reports`."""
    names = (collection.database, collection.name, run_id)
    return "/".join((reports_directory(root, pipeline), *(path_segment(name) for name in names)))


def read_report(lake_path: str, format_: ReportFormat, stores: ObjectStoreSettings) -> Iterator[bytes]:
    """Return the file piece by piece. Raises `ReportGone`, `Transient` or `Fatal` before the first piece."""
    directory, name = _place(lake_path)
    url = f"{lake_path}.{format_}"
    with store_errors(f"read {url}"):
        try:
            found = obstore.get(open_store(directory, stores), f"{name}.{format_}")
        except FileNotFoundError:
            raise ReportGone(f"there is no report at {url}: its retention is over, or it was deleted") from None
    return (bytes(piece) for piece in found.stream())


def delete_report(lake_path: str, stores: ObjectStoreSettings) -> None:
    """Delete the report in all formats; gone already is well. Raises `Transient` or `Fatal`."""
    directory, name = _place(lake_path)
    store = open_store(directory, stores)
    for format_ in REPORT_FORMATS:
        with store_errors(f"delete {lake_path}.{format_}"), suppress(FileNotFoundError):
            obstore.delete(store, f"{name}.{format_}")


def _place(lake_path: str) -> tuple[str, str]:
    """The directory and the name in it. Nothing else in the lake is read or deleted by a path that is no report's."""
    if f"/{RECONCILIATION_DIRECTORY}/" not in lake_path:
        raise Fatal("this is not where reports of reconciliation are")
    directory, _, name = lake_path.rpartition("/")
    return directory, name
