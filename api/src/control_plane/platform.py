"""The control plane's services, made once at the start and handed to every request."""

from dataclasses import dataclass

from control_plane.blocking import BlockingCalls
from control_plane.database import Database
from control_plane.services.audit_trail import AuditTrail
from control_plane.services.auth_service import AuthService
from control_plane.services.data_quality import RulesService
from control_plane.services.dead_letters import PipelineLetters
from control_plane.services.lake_queries import LakeQueries
from control_plane.services.pipeline_manager import PipelineManager
from control_plane.services.pipeline_status import Monitoring
from control_plane.services.preflight import Preflight
from control_plane.services.spec_admission import SpecAdmission
from control_plane.services.user_service import UserService
from control_plane.settings import Settings


@dataclass(frozen=True, slots=True)
class Platform:
    """What endpoints work with (`dependencies.ThePlatform`)."""

    settings: Settings
    database: Database
    audit: AuditTrail
    auth: AuthService
    users: UserService
    blocking: BlockingCalls
    pipelines: PipelineManager
    admission: SpecAdmission
    preflight: Preflight
    rules: RulesService
    dead_letters: PipelineLetters
    monitoring: Monitoring
    queries: LakeQueries
