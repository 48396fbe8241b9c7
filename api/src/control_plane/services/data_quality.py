"""The rules of a pipeline: the versions that were published, and a dry run on real events. Everything here blocks."""

from cdc_shared.kafka.newest_records import newest_records
from cdc_shared.kafka.rules_topic import read_versions
from cdc_shared.kafka.topics import UnknownTopic, change_topic
from cdc_shared.models.common import PipelineSpec
from cdc_shared.rules.compiled import Secrets
from control_plane.models.data_quality import DryRun, DryRunResult, RulesBody, RulesVersion
from control_plane.problems import Problem
from control_plane.services.dry_run import dry_run


class RulesService:
    """Rules as Kafka has them."""

    def __init__(self, bootstrap_servers: str, secrets: Secrets) -> None:
        """`secrets` gives the key of a mask by its reference, as the writer will."""
        self._bootstrap = bootstrap_servers
        self._secrets = secrets

    def versions(self, pipeline: str) -> list[RulesVersion]:
        """Every version that was published, newest first."""
        published = read_versions(self._bootstrap, pipeline)
        return [
            RulesVersion(version=version, rules=RulesBody.of(published[version]))
            for version in sorted(published, reverse=True)
        ]

    def try_out(self, spec: PipelineSpec, wanted: DryRun, *, reveal: bool) -> DryRunResult:
        """What rules would make of the newest events of a collection.

        Raises `Problem` 422 for a collection that is not captured, 409 while it has no events; `InvalidRules`.
        """
        if not spec.source.captures(wanted.collection):
            raise Problem(422, "not_captured", "the pipeline does not capture this collection; correct its name")
        topic = change_topic(spec.name, spec.source.database, wanted.collection)
        try:
            records = newest_records(self._bootstrap, topic, wanted.sample)
        except UnknownTopic:
            raise Problem(
                409, "no_events", "there are no events of this collection yet: start the pipeline, then try again"
            ) from None
        quality = spec.quality if wanted.rules is None else wanted.rules.quality()
        return dry_run(records, quality, wanted.collection, self._secrets, reveal=reveal)
