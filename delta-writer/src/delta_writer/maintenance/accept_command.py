"""`delta-writer accept`: what it asks, and what it says."""

import threading
import time
from collections.abc import Callable

from confluent_kafka.admin import AdminClient

from cdc_shared.delta.table_location import table_location
from cdc_shared.delta.table_metadata import TableIdentity
from cdc_shared.models.collection import Collection
from cdc_shared.models.common import PipelineSpec
from cdc_shared.retry import retrying
from cdc_shared.settings import ObjectStoreSettings
from delta_writer.maintenance.acceptance import AcceptancePlan, TableAcceptance
from delta_writer.maintenance.restore_command import GIVE_UP_AFTER_S, topic_of_table


def accept_collection(
    bootstrap_servers: str,
    stores: ObjectStoreSettings,
    spec: PipelineSpec,
    collection: str,
    say: Callable[[str], None],
    *,
    dry_run: bool,
    confirm: Callable[[], None],
) -> None:
    """Accept what other programs did to the rows of the collection's table; `say` gets lines of text.

    `confirm` is asked before anything is written, with `dry_run` not at all. No writer needs to be stopped: those that
    knew the table before stop at what the others did, and go on when they are started again.

    Raises:
        Fatal: `TableAcceptance` refuses. Nothing was written.
    """
    where = Collection(spec.source.database, collection)
    identity = TableIdentity(spec.name, where.database, where.name)
    location = table_location(spec, stores, where)
    topic = topic_of_table(AdminClient({"bootstrap.servers": bootstrap_servers, "log_level": 5}), identity)
    table = TableAcceptance(location, identity, topic, spec.sink.mode, time.time)
    plan = table.plan()
    say(_summary(location.url, plan))
    if not plan.changes:
        return
    if dry_run:
        say("nothing was written (--dry-run)")
        return
    confirm()
    version = retrying(
        lambda: table.apply(plan),
        lambda attempt: say(f"waiting for the store: {attempt.error}"),
        threading.Event(),
        give_up_after_s=GIVE_UP_AFTER_S,
    )
    say(
        f"accepted, as version {version}. The table may be wrong until it was reconciled: start the pipeline's "
        "writers, or publish its spec again to those that run; then reconcile the collection in mode full, and repair "
        "what that finds"
    )


def _summary(url: str, plan: AcceptancePlan) -> str:
    if not plan.changes:
        return f"{url}: no other program has changed rows since this platform's last commit; there is nothing to accept"
    return "\n".join(
        [
            f"{url}: changed by other programs",
            *(
                f"  version {change.version}: {change.operation} by {change.engine}, {change.files_in:,} data files "
                f"added, {change.files_out:,} removed"
                for change in plan.changes
            ),
        ]
    )
