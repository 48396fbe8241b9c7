"""Reports of reconciliation: as files in the lake, and as JSON in Postgres where the lake has none."""

from collections.abc import Iterator
from functools import partial

from pydantic_core import to_json

from cdc_shared.errors import Transient
from cdc_shared.settings import ObjectStoreSettings
from cdc_shared.storage.report_files import ReportFormat, ReportGone, read_report
from control_plane.blocking import BlockingCalls
from control_plane.models.reconciliation import StoredReport
from control_plane.problems import Problem


async def report_file(
    stored: StoredReport, form: ReportFormat, stores: ObjectStoreSettings, blocking: BlockingCalls
) -> Iterator[bytes]:
    """The report in a format, piece by piece. JSON is told from Postgres where the lake has none or does not answer.

    Raises `Problem` 404 where another format is not kept (any longer), `Transient` while the store does not answer.
    """
    if stored.lake_path is not None:
        try:
            return await blocking.run(partial(read_report, stored.lake_path, form, stores))
        except ReportGone:
            pass
        except Transient:
            if form != "json":
                raise
    if form == "json":
        return iter([to_json(stored.report)])
    raise Problem(
        404, "report_not_kept", f"the report is not kept as {form} (any longer): ask for format=json, or compare again"
    )
