"""scripts/setup-local.sh: which Python it takes, and what it says when there is none that will do."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.unit

REPOSITORY = Path(__file__).parents[3]
TOOLS = ("bash", "cat", "cut", "dirname", "flock", "grep", "mkdir", "rm", "sed", "sha256sum", "tail")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout with a space in its path and just what the script reads; `bin` holds the tools it may use."""
    root = tmp_path / "a checkout"
    (root / "scripts").mkdir(parents=True)
    shutil.copy(REPOSITORY / "scripts" / "setup-local.sh", root / "scripts")
    (root / "requirements.lock").write_text("package==1\n")
    for package in ("shared", "delta-writer", "api", "reconciliation"):
        (root / package).mkdir()
        (root / package / "pyproject.toml").touch()
    (root / "bin").mkdir()
    for tool in TOOLS:
        (root / "bin" / tool).symlink_to(shutil.which(tool) or pytest.fail(f"no {tool} on this machine"))
    return root


def fake_python(checkout: Path, name: str, version: tuple[int, int], *, has_venv: bool = True) -> None:
    """A Python of that version. Asked to make a virtual environment it says so and fails, which ends the script."""
    python = checkout / "bin" / name
    python.write_text(
        f"""#!/bin/sh
if [ "$1" = --version ]; then echo "Python {version[0]}.{version[1]}.0"; exit; fi
if [ "$1" = -m ]; then echo "$0 was chosen"; exit 1; fi
case "$2" in *ensurepip*) exit {0 if has_venv else 1};; esac
exec '{sys.executable}' -c "import sys; sys.version_info = ({version[0]}, {version[1]}, 0, 'final', 0)
$2"
"""
    )
    python.chmod(0o755)


def run(checkout: Path) -> tuple[str, str]:
    """What the script says, and what went to its log. It must fail."""
    environment = {"PATH": str(checkout / "bin"), "HOME": str(checkout)}
    script = [str(checkout / "bin" / "bash"), str(checkout / "scripts" / "setup-local.sh"), "venv"]
    done = subprocess.run(script, env=environment, capture_output=True, text=True, check=False, timeout=30)
    assert done.returncode == 1, done.stdout + done.stderr
    log = checkout / ".local" / "logs" / "setup.log"
    return done.stdout + done.stderr, log.read_text() if log.exists() else ""


def test_no_python_at_all(checkout: Path) -> None:
    said, _ = run(checkout)

    assert "Python 3.11, 3.12 or 3.13 is needed; no python3 is installed" in said
    assert "apt-get install -y python3 python3-venv" in said


@pytest.mark.parametrize("version", [(3, 10), (3, 14)])
def test_only_an_unsupported_python(checkout: Path, version: tuple[int, int]) -> None:
    fake_python(checkout, "python3", version)

    said, _ = run(checkout)

    assert f"python3 is Python {version[0]}.{version[1]}.0" in said


def test_python3_is_taken_when_it_will_do(checkout: Path) -> None:
    fake_python(checkout, "python3", (3, 11))
    fake_python(checkout, "python3.13", (3, 13))

    assert "bin/python3 was chosen" in run(checkout)[1]


def test_a_newer_python_beside_an_old_python3_is_taken(checkout: Path) -> None:
    fake_python(checkout, "python3", (3, 9))
    fake_python(checkout, "python3.12", (3, 12))

    assert "bin/python3.12 was chosen" in run(checkout)[1]


def test_a_python_without_venv_gives_way_to_one_with_it(checkout: Path) -> None:
    fake_python(checkout, "python3", (3, 11), has_venv=False)
    fake_python(checkout, "python3.12", (3, 12))

    assert "bin/python3.12 was chosen" in run(checkout)[1]


def test_a_missing_venv_module_is_named_with_its_package(checkout: Path) -> None:
    """No apt-get on the path, so that nothing is installed, whoever runs this."""
    assert not (checkout / "bin" / "apt-get").exists()
    fake_python(checkout, "python3", (3, 12), has_venv=False)

    said, _ = run(checkout)

    assert "its venv module is missing" in said
    assert "sudo apt-get install -y python3.12-venv" in said
