"""What a killed process has left of a rewrite is deleted; what a living one works on is not."""

import subprocess
import sys

import pytest

from delta_writer.maintenance.rewrite_directory import remove_left_overs, rewrite_directory

pytestmark = pytest.mark.unit

KILLED = """
import os, pathlib, signal, sys
from delta_writer.maintenance.rewrite_directory import rewrite_directory
with rewrite_directory(pathlib.Path(sys.argv[1])) as directory:
    (directory / "output").write_bytes(b"x" * 1000)
    print(directory, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def killed_process(cache_dir):
    """Return the directory of a process that was killed in a rewrite."""
    run = subprocess.run([sys.executable, "-c", KILLED, str(cache_dir)], capture_output=True, text=True, check=False)
    assert run.returncode == -9, run.stderr
    return run.stdout.strip()


def test_left_overs_of_a_killed_process_are_deleted_at_the_next_start(tmp_path):
    remove_left_overs(tmp_path)  # nothing there yet
    with rewrite_directory(tmp_path) as ours:
        (ours / "output").write_bytes(b"ours")
        left = killed_process(tmp_path)
        assert {str(path.parent) for path in tmp_path.rglob("output")} == {str(ours), left}
        remove_left_overs(tmp_path)
        assert list(tmp_path.rglob("output")) == [ours / "output"]
    assert not list((tmp_path / "rewrites").iterdir())


def test_the_next_rewrite_deletes_them_too(tmp_path):
    killed_process(tmp_path)
    with rewrite_directory(tmp_path) as ours:
        assert [path.name for path in ours.iterdir()] == ["lock"]
        with rewrite_directory(tmp_path) as another:
            assert another != ours
