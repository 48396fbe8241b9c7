"""Which workers a service or command has, by its settings."""

from cdc_shared.errors import Fatal
from reconciliation.workers.processes import ProcessRunner
from reconciliation.workers.runner import Runner
from reconciliation.workers.threads import ThreadRunner


def runner_for(workers: int = 1, dask_scheduler: str | None = None) -> Runner:
    """Return a runner on the Dask scheduler at this address, else one of so many workers on this machine.

    One worker is the run's own thread. Raises Fatal when there is an address, and the extra `dask` is not installed.
    """
    if dask_scheduler is not None:
        try:
            from reconciliation.workers.dask import DaskRunner
        except ImportError:
            raise Fatal(
                "a Dask scheduler is configured, but distributed is not installed here: "
                "pip install 'cdc-reconciliation[dask]', or unset the scheduler"
            ) from None
        return DaskRunner(dask_scheduler)
    return ProcessRunner(workers) if workers > 1 else ThreadRunner()
