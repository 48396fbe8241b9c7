"""Reports of runs, made and written to the lake."""

from collections.abc import Callable
from datetime import datetime

from cdc_shared.errors import shown
from cdc_shared.logging.structured_logger import get_logger
from cdc_shared.models.collection import Collection
from cdc_shared.models.common import PipelineSpec
from cdc_shared.settings import ObjectStoreSettings
from reconciliation.reconciler.result import RunResult
from reconciliation.reporters.report import Report, ReportedRun
from reconciliation.reporters.report_store import write_to_lake
from reconciliation.scheduler.job import Job, Run
from reconciliation.scheduler.result_store import WrittenReport

log = get_logger(__name__)


class ReportWriter:
    """A `surroundings.MakeReport`. `not_written` is told the pipeline when the lake does not take a report."""

    def __init__(self, stores: ObjectStoreSettings, not_written: Callable[[str], None]) -> None:
        self._stores = stores
        self._not_written = not_written

    def __call__(self, job: Job, run: Run, spec: PipelineSpec, result: RunResult, at: datetime) -> WrittenReport:
        """Blocks. A lake that cannot be written costs the run nothing."""
        reported = ReportedRun(
            run_id=str(run.id),
            job_id=str(job.id),
            pipeline=job.pipeline,
            collection=Collection(run.database, run.collection),
            mode=job.mode,
            options=job.options,
            requested_by=job.requested_by,
            started_at=run.started_at or at,
            finished_at=at,
        )
        report = Report(reported, result)
        try:
            return WrittenReport(report, write_to_lake(report, self._stores.root_for(spec.sink.root), self._stores))
        except Exception as error:  # a fault in a report must not cost the verdict
            log.error("a report is in Postgres alone", pipeline=job.pipeline, run=str(run.id), reason=shown(error))
            self._not_written(job.pipeline)
            return WrittenReport(report, None)
