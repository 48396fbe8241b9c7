"""What a spec may ask for: the secrets that it names, and the place of its tables. docs/adr/0023-spec-admission.md.

A reference in a spec is resolved by the platform, with the platform's rights. So whoever writes specs would otherwise
use every secret that the platform can read, its own included, and every directory of its machines.
"""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Final, Self
from urllib.parse import urlsplit

from cdc_shared.models.data_quality import QualitySpec
from cdc_shared.models.reconciliation import EmailChannel, Notifications
from cdc_shared.storage.object_store import local_path
from control_plane.models.auth import Principal
from control_plane.models.pipeline import PipelineConfig
from control_plane.problems import Problem
from control_plane.settings import Settings

_LIBRARIES_VARIABLE: Final = re.compile(r"(AWS|AZURE|GCP|GOOGLE|OTEL|VAULT)_|PG[A-Z]+$")
"""Variables that the platform's libraries read by themselves."""


@dataclass(frozen=True, slots=True)
class SpecAdmission:
    """Asked before a spec is stored or tried. What the stored spec says already was admitted, and may stay.

    The methods raise `Problem`: 422 `reserved_secret` or `root_not_allowed` for what nobody may ask for, 403
    `out_of_scope` for what somebody may not who is limited to pipelines.
    """

    reserved: frozenset[str]
    """References that are the platform's own."""
    local_tables: Path | None
    """The directory of the platform's machines that tables may be in; None: they go to object stores."""

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """With what the settings read or name reserved, and DELTA_ROOT, if it is a directory, allowed."""
        variables = {
            f"env:{variable.validation_alias}"
            for part in fields(Settings)
            for variable in type(getattr(settings, part.name)).model_fields.values()
        }
        root = settings.stores.delta_root
        return cls(
            reserved=frozenset(variables | {settings.api.signing_keys, settings.data_key.reference}),
            local_tables=local_path(root) if root is not None and _is_local(root) else None,
        )

    def check(self, config: PipelineConfig, by: Principal, before: Mapping[str, Any] | None = None) -> None:
        """A spec to make a pipeline with, to try, or to put in the place of `before`, a stored one."""
        if not by.may_touch(config.name):
            raise _out_of_scope("this pipeline's name is not among those that you are limited to")
        self._check_references(config.name, config.stored(), by, before or {})
        root = config.sink.root
        if root == (before or {}).get("sink", {}).get("root"):
            return
        if by.pipelines is not None:
            raise _out_of_scope(
                "who is limited to pipelines does not choose where tables go: leave sink.root as it is, or ask "
                "somebody who is not to set it"
            )
        if root is not None and _is_local(root):
            self._check_directory(local_path(root))

    def check_rules(self, pipeline: str, rules: QualitySpec, by: Principal, before: Mapping[str, Any]) -> None:
        """Rules to give to a pipeline whose stored spec is `before`, or to try there."""
        self._check_references(pipeline, {"quality": rules.model_dump(mode="json")}, by, before)

    def check_notifications(
        self, pipeline: str, wanted: Notifications, by: Principal, before: Notifications | None = None
    ) -> None:
        """Who is told of a pipeline's reconciliation; `before` is what a stored schedule says."""
        self._check_named(pipeline, _urls(wanted) - (_urls(before) if before else set()), by)

    def _check_references(
        self, pipeline: str, wanted: Mapping[str, Any], by: Principal, before: Mapping[str, Any]
    ) -> None:
        self._check_named(pipeline, _references(wanted) - _references(before), by)

    def _check_named(self, pipeline: str, references: Collection[str], by: Principal) -> None:
        for reference in sorted(references):
            scheme, _, name = reference.partition(":")
            if reference in self.reserved or (scheme == "env" and _LIBRARIES_VARIABLE.match(name)):
                raise Problem(
                    422,
                    "reserved_secret",
                    f"{reference} is the platform's own: name a secret that is kept for the pipeline",
                )
            theirs = reference == f"secret:{pipeline}" or reference.startswith(f"secret:{pipeline}/")
            if by.pipelines is not None and not theirs:
                raise _out_of_scope(
                    f"who is limited to pipelines names secret:{pipeline} or secret:{pipeline}/… and no other secret: "
                    "keep it there, or ask somebody who is not to name it in the spec"
                )

    def _check_directory(self, place: Path) -> None:
        if self.local_tables is None or ".." in place.parts or not place.is_relative_to(self.local_tables):
            allowed = f"give one below {self.local_tables}" if self.local_tables else "give an object store's URL"
            raise Problem(
                422,
                "root_not_allowed",
                f"sink.root is a directory of the platform's machines, and DELTA_ROOT does not hold it: {allowed}",
            )


def _references(spec: Mapping[str, Any]) -> set[str]:
    """What a spec as it is stored, in any release, names: the source's secret and the keys of masks."""
    rules = spec.get("quality", {}).get("transformation", ())
    named = (spec.get("source", {}).get("connection"), *(each.get("key") for each in rules))
    return {each for each in named if isinstance(each, str)}


def _urls(notifications: Notifications) -> set[str]:
    return {each.url for each in notifications.channels if not isinstance(each, EmailChannel)}


def _is_local(root: str) -> bool:
    return urlsplit(root).scheme in ("", "file")


def _out_of_scope(detail: str) -> Problem:
    return Problem(403, "out_of_scope", detail)
