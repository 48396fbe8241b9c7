"""What a spec may ask for: no secret of the platform, no directory outside of DELTA_ROOT, nothing of others."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from cdc_shared.models.data_quality import QualitySpec
from control_plane.models.auth import Principal
from control_plane.models.pipeline import PipelineConfig
from control_plane.problems import Problem
from control_plane.services.spec_admission import SpecAdmission

pytestmark = pytest.mark.unit

ADMISSION = SpecAdmission(frozenset({"secret:keys", "env:POSTGRES_DSN"}), Path("/lake"))
NO_DIRECTORY = SpecAdmission(frozenset(), None)


def principal(*pipelines: str) -> Principal:
    """Without pipelines: not limited."""
    return Principal(UUID(int=1), "ada", "user", frozenset(), frozenset(), frozenset(pipelines) or None)


def config(connection: str = "secret:shop", root: str | None = None, *keys: str) -> PipelineConfig:
    rules = [{"rule": "hash", "path": f"/field{n}", "key": key} for n, key in enumerate(keys)]
    spec: dict[str, Any] = {
        "name": "shop",
        "source": {"connection": connection, "database": "d"},
        "sink": {"root": root},
        "quality": {"transformation": rules},
    }
    return PipelineConfig.model_validate(spec)


def refusal(wanted: PipelineConfig, by: Principal, before: PipelineConfig | None = None) -> str | None:
    try:
        ADMISSION.check(wanted, by, before.stored() if before else None)
    except Problem as problem:
        return problem.code
    return None


@pytest.mark.parametrize("reference", ["secret:keys", "env:POSTGRES_DSN", "env:AWS_PROFILE", "env:PGPASSFILE"])
def test_nobody_names_a_secret_of_the_platform(reference: str) -> None:
    for by in (principal(), principal("shop")):
        assert refusal(config(reference), by) == "reserved_secret"
        assert refusal(config("secret:shop", None, "secret:shop/mask", reference), by) == "reserved_secret"


@pytest.mark.parametrize("reference", ["secret:keys2", "env:PG_SHOP", "env:MONGODB_URI", "env:SHOP_AWS_URI"])
def test_other_secrets_are_for_everybody_who_is_not_limited(reference: str) -> None:
    assert refusal(config(reference, None, reference), principal()) is None


@pytest.mark.parametrize(
    ("reference", "code"),
    [
        ("secret:shop", None),
        ("secret:shop/mongodb", None),
        ("secret:shop-eu", "out_of_scope"),
        ("secret:crm/mongodb", "out_of_scope"),
        ("secret:team/shop/mongodb", "out_of_scope"),
        ("env:shop", "out_of_scope"),
    ],
)
def test_who_is_limited_names_secrets_of_the_pipeline_only(reference: str, code: str | None) -> None:
    assert refusal(config(reference), principal("shop", "crm")) == code
    assert refusal(config("secret:shop", None, reference), principal("shop", "crm")) == code


def test_what_the_stored_spec_says_may_stay_and_nothing_else_of_its_kind_may_come() -> None:
    by, before = principal("shop"), config("env:SHOP", "s3://lake/x", "secret:masks")
    assert refusal(before, by, before) is None
    assert refusal(config("secret:shop", "s3://lake/x"), by, before) is None
    assert refusal(config("env:SHOP2", "s3://lake/x"), by, before) == "out_of_scope"
    assert refusal(config("env:SHOP", "s3://lake/y"), by, before) == "out_of_scope"
    assert refusal(config("env:SHOP", None), by, before) == "out_of_scope"


def test_who_is_limited_makes_no_pipeline_of_another_name() -> None:
    assert refusal(config(), principal("crm")) == "out_of_scope"


@pytest.mark.parametrize(
    ("root", "code"),
    [
        ("/lake", None),
        ("/lake/shops", None),
        ("file:///lake/shops", None),
        ("s3://anywhere/x", None),
        ("/", "root_not_allowed"),
        ("/lakes", "root_not_allowed"),
        ("/lake/../etc", "root_not_allowed"),
        ("file:///lake/%2e%2e/etc", "root_not_allowed"),
    ],
)
def test_a_directory_lies_below_the_one_of_the_settings(root: str, code: str | None) -> None:
    assert refusal(config("secret:shop", root), principal()) == code


def test_without_a_directory_in_the_settings_there_is_none() -> None:
    with pytest.raises(Problem, match="object store"):
        NO_DIRECTORY.check(config("secret:shop", "/lake"), principal())


def test_a_stored_spec_of_another_release_is_compared_as_far_as_it_can_be() -> None:
    for before in ({}, {"source": {}, "quality": {"transformation": [{"rule": "new", "key": 7}]}}):
        ADMISSION.check(config("secret:x"), principal(), before)


def test_rules_are_held_to_the_same() -> None:
    before = config("env:SHOP", None, "secret:masks").stored()
    rules = config("secret:x", None, "secret:masks").quality
    ADMISSION.check_rules("shop", rules, principal("shop"), before)
    strange = QualitySpec.model_validate({"transformation": [{"rule": "email", "path": "/e", "key": "secret:other"}]})
    with pytest.raises(Problem, match="secret:shop/"):
        ADMISSION.check_rules("shop", strange, principal("shop"), before)
    ADMISSION.check_rules("shop", strange, principal(), before)
