"""Data-quality rules, dead letters and schema histories of pipelines, through the API."""

from collections.abc import Iterator
from urllib.parse import quote

from control_plane.client.connection import Connection
from control_plane.client.pipelines import pipeline_path
from control_plane.models.data_quality import DryRun, DryRunResult, RulesBody, RulesVersion, RulesView, SchemaHistory
from control_plane.models.dead_letters import DiscardResult, LetterContent, LettersMeant, LetterView, ReplayResult


class Rules:
    """What documents must be, what is made of them, and what nobody may see."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def get(self, pipeline: str) -> RulesView:
        return self._connection.get(RulesView, f"{pipeline_path(pipeline)}/rules")

    def put(self, pipeline: str, rules: RulesBody, etag: str) -> RulesView:
        """Give the pipeline other rules. `etag`: of `Pipelines.tagged`. Raises `Stale` when it was changed since."""
        answer = self._connection.request(
            "PUT", f"{pipeline_path(pipeline)}/rules", json=rules.model_dump(mode="json"), headers={"If-Match": etag}
        )
        return RulesView.model_validate_json(answer.content)

    def versions(self, pipeline: str) -> Iterator[RulesVersion]:
        """Every version that was published, the newest first."""
        return self._connection.items(RulesVersion, f"{pipeline_path(pipeline)}/rules/versions")

    def dry_run(self, pipeline: str, wanted: DryRun) -> DryRunResult:
        """What rules would make of the newest events of a collection. Nothing is changed."""
        path = f"{pipeline_path(pipeline)}/rules/dry-run"
        return self._connection.post(DryRunResult, path, wanted)

    def schema_history(self, pipeline: str, collection: str) -> SchemaHistory:
        """How the schema of a collection's table came to be."""
        path = f"{pipeline_path(pipeline)}/collections/{quote(collection, safe='')}/schema"
        return self._connection.get(SchemaHistory, path)


class DeadLetters:
    """Records that could not be applied. `letter` is `topic:partition:offset`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def list(self, pipeline: str, **filters: object) -> Iterator[LetterView]:
        """Oldest first; filters are `collection`, `code`, `rule`, `since` and `until`."""
        return self._connection.items(LetterView, _path(pipeline), **filters)

    def show(self, pipeline: str, letter: str, *, reveal: bool = False) -> LetterContent:
        """What is in it; with its values by `reveal`, which is a permission of its own."""
        path = f"{_path(pipeline)}/{quote(letter, safe=':')}"
        return self._connection.get(LetterContent, f"{path}/revealed" if reveal else path)

    def replay(self, pipeline: str, meant: LettersMeant) -> ReplayResult:
        """Try them again: the writer reads their documents as they are now."""
        return self._connection.post(ReplayResult, f"{_path(pipeline)}/replay", meant)

    def discard(self, pipeline: str, meant: LettersMeant) -> DiscardResult:
        """Give them up for good."""
        return self._connection.post(DiscardResult, f"{_path(pipeline)}/discard", meant)


def _path(pipeline: str) -> str:
    return f"{pipeline_path(pipeline)}/dead-letters"
