"""What the service's clean-up may delete."""

import uuid
from pathlib import Path

import pytest

from reconciliation.service import run_directories

pytestmark = pytest.mark.unit


def test_only_what_a_run_has_left_is_looked_at(tmp_path: Path) -> None:
    """The directory may be one that others use as well: their files must survive the clean-up."""
    run = str(uuid.uuid4())
    for name in (run, "photographs", uuid.uuid4().hex, str(uuid.uuid4()).upper()):
        (tmp_path / name).mkdir()
    (tmp_path / str(uuid.uuid4())).touch()
    assert [each.name for each in run_directories(tmp_path)] == [run]


def test_there_may_be_no_such_directory(tmp_path: Path) -> None:
    assert run_directories(tmp_path / "none") == []
