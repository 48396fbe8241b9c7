"""`/api/v1/pipelines/{name}/rules`: validation, transformation and masking; and how tables' schemas came to be."""

from functools import partial
from typing import Annotated

from fastapi import Path, Response

from cdc_shared.models.common import CollectionName, PipelineSpec
from control_plane.dependencies import CurrentPrincipal, Reading, ThePlatform, Work
from control_plane.middleware.rbac import guard
from control_plane.models.audit import Action
from control_plane.models.data_quality import DryRun, DryRunResult, RulesBody, RulesVersion, RulesView, SchemaHistory
from control_plane.models.pages import Page
from control_plane.models.pipeline import PipelineRecord
from control_plane.permissions import Permission
from control_plane.platform import Platform
from control_plane.problems import Problem
from control_plane.routers.pipeline_requests import IfMatch, Name
from control_plane.routes import guarded_router
from control_plane.services.lifecycle import config_of
from control_plane.services.schema_history import schema_history

router = guarded_router(prefix="/api/v1/pipelines/{name}", tags=["data quality"])


@router.get("/rules", dependencies=[guard(Permission.PIPELINES_READ, Action.RULES_READ)])
async def get_rules(name: Name, platform: ThePlatform, reading: Reading, response: Response) -> RulesView:
    """The rules that the pipeline is wanted to have, with the pipeline's ETag."""
    return _view(await platform.pipelines.get(reading, name), response)


@router.put(
    "/rules",
    responses={409: {"description": "The pipeline is being reset or deleted"}},
    dependencies=[guard(Permission.RULES_WRITE, Action.RULES_CHANGE)],
)
async def put_rules(
    name: Name,
    rules: RulesBody,
    platform: ThePlatform,
    principal: CurrentPrincipal,
    work: Work,
    response: Response,
    if_match: IfMatch = None,
) -> RulesView:
    """Give the pipeline other rules. Writers take them from their next batch on, without a restart.

    Rows that are there already keep what the rules before made of them; `notices` says what should be done about that.
    """
    quality = rules.quality()
    record = await platform.pipelines.get(work.connection, name)
    platform.admission.check_rules(name, quality, principal, record.spec)
    change = await platform.pipelines.replace_quality(work.connection, name, quality, if_match, principal.name)
    return _view(change.record, response, change.notices)


@router.get("/rules/versions", dependencies=[guard(Permission.PIPELINES_READ, Action.RULES_VERSIONS)])
async def list_rules_versions(name: Name, platform: ThePlatform) -> Page[RulesVersion]:
    """Every version that was published, newest first. A row's `_cdc_rules_version` says which one made it."""
    await _spec(platform, name)
    return Page(items=await platform.blocking.run(partial(platform.rules.versions, name)))


@router.post(
    "/rules/dry-run",
    responses={409: {"description": "The collection has no change topic as yet, or its events cannot be read"}},
    dependencies=[guard(Permission.RULES_WRITE, Action.RULES_DRY_RUN)],
)
async def dry_run_rules(name: Name, wanted: DryRun, platform: ThePlatform, principal: CurrentPrincipal) -> DryRunResult:
    """Show what rules would make of the newest events of a collection: nothing is changed.

    Documents are shown with their values to those who may see dead letters unmasked; to others, with types for values.
    """
    spec = await _spec(platform, name)
    if wanted.rules is not None:
        platform.admission.check_rules(name, wanted.rules.quality(), principal, spec.model_dump(mode="json"))
    reveal = principal.may(Permission.DEAD_LETTERS_REVEAL)
    return await platform.blocking.run(partial(platform.rules.try_out, spec, wanted, reveal=reveal))


@router.get(
    "/collections/{collection}/schema",
    responses={409: {"description": "The collection has no table as yet, or it is none of the platform's"}},
    dependencies=[guard(Permission.PIPELINES_READ, Action.SCHEMA_HISTORY)],
)
async def get_schema_history(
    name: Name,
    collection: Annotated[CollectionName, Path(description="the collection's name, without its database")],
    platform: ThePlatform,
    *,
    history_table: bool = False,
) -> SchemaHistory:
    """How the schema of a collection's table came to be: what changed, when, and the first event of each field."""
    spec = await _spec(platform, name)
    if not spec.source.captures(collection):
        raise Problem(404, "not_captured", "the pipeline does not capture this collection; correct its name")
    stores = platform.settings.stores
    return await platform.blocking.run(partial(schema_history, spec, collection, stores, history_table=history_table))


async def _spec(platform: Platform, name: str) -> PipelineSpec:
    """The pipeline's spec; no connection is held while Kafka or the store is asked then."""
    async with platform.database.connection() as connection:
        return config_of(await platform.pipelines.get(connection, name)).spec()


def _view(record: PipelineRecord, response: Response, notices: tuple[str, ...] = ()) -> RulesView:
    response.headers["ETag"] = record.etag
    rules = RulesBody.of(config_of(record).quality)
    return RulesView(rules=rules, pipeline_version=record.version, notices=list(notices))
