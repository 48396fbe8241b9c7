"""A stack as the parts see it, in a directory of the test's own."""

import tempfile
from pathlib import Path

import pytest

from local_stack.credentials import Credentials
from local_stack.layout import Layout
from local_stack.ports import PORTS
from local_stack.settings import StackSettings
from local_stack.stack import Stack

REPOSITORY = Path(__file__).parents[3]

CREDENTIALS = Credentials(
    s3_access_key_id="cdc-access-key",
    s3_secret_access_key="s3-secret-of-the-test",
    s3_encryption_key="5e" * 32,
    postgres_password="postgres-password-of-the-test",
    kafka_cluster_id="AAAAAAAAAAAAAAAAAAAAAA",
    api_admin_password="admin-password-of-the-test",
)


@pytest.fixture
def layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Layout:
    """A checkout whose path holds a space, with the repository's templates."""
    # Its path may be too long for a socket: the directory that stands in for it then goes with the test as well.
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    root = tmp_path / "a checkout"
    (root / "config").mkdir(parents=True)
    (root / "config" / "local").symlink_to(REPOSITORY / "config" / "local")
    made = Layout(root, tmp_path / "cache")
    made.make_directories()
    return made


@pytest.fixture
def stack(layout: Layout) -> Stack:
    return Stack(
        layout=layout,
        settings=StackSettings(),
        ports={spec.variable: spec.default for spec in PORTS},
        credentials=CREDENTIALS,
        java=Path("/usr/bin/java"),
        jars=layout.cache / "jars" / "0123",
    )
