"""`scripts/query-deltalake.sh`: forms of output, time travel, and what is said when it cannot answer."""

import json
import os
import subprocess
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import write_deltalake

from cdc_shared.storage.object_store import table_url

pytestmark = pytest.mark.unit

ROOT = Path(__file__).resolve().parents[3]
NAMES = "SELECT n, s FROM shop.shop.orders ORDER BY n"


@pytest.fixture
def lake(tmp_path: Path) -> Path:
    root = tmp_path / "lake"
    for number in (1, 2):
        rows = pa.table({"n": [number], "s": [["a", "b"][:number]]})
        write_deltalake(table_url(str(root), "shop", "shop", "orders"), rows, mode="append")
    return root


def ask(lake: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    keep = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "S3_", "DELTA_"))}
    return subprocess.run(
        [str(ROOT / "scripts" / "query-deltalake.sh"), *arguments],
        env={**keep, "DELTA_ROOT": str(lake), **variables},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_an_answer_has_the_form_asked_for(lake: Path, tmp_path: Path) -> None:
    assert "│     1 │ [a]       │" in ask(lake, NAMES).stdout
    assert ask(lake, "-f", "csv", NAMES).stdout == '"n","s"\n1,"[""a""]"\n2,"[""a"",""b""]"\n'
    lines = ask(lake, "--format", "json", NAMES).stdout.splitlines()
    assert [json.loads(line) for line in lines] == [{"n": 1, "s": ["a"]}, {"n": 2, "s": ["a", "b"]}]

    file = tmp_path / "answer.parquet"
    assert ask(lake, "--output", str(file), NAMES).stdout == ""
    assert pq.read_table(file).to_pylist() == [{"n": 1, "s": ["a"]}, {"n": 2, "s": ["a", "b"]}]


def test_tables_versions_and_plans_are_shown(lake: Path) -> None:
    assert ask(lake, "--tables").stdout == "shop.shop.orders\n"
    assert (
        ask(lake, "-f", "csv", "--as-of", "0", "SELECT count(*) AS rows FROM shop.shop.orders").stdout == '"rows"\n1\n'
    )
    plan = ask(lake, "--explain", "SELECT n, s FROM shop.shop.orders WHERE n = 2").stdout
    assert plan.splitlines()[-1:] == ["files: 1 of 2 read, 1 skipped"]


@pytest.mark.parametrize(
    ("arguments", "status", "says"),
    [
        (["FROM shop.shop.nothing"], 1, "There are: shop.shop.orders"),
        (["SELECT nope FROM shop.shop.orders"], 1, '"nope" not found'),
        (["COPY (SELECT 1) TO 'x'"], 1, "COPY is not allowed here"),
        (["--as-of", "yesterday", NAMES], 2, "give a time as 2026-11-17T09:00:00Z, or the number of a version"),
        (["--as-of", "7", NAMES], 1, "versions 0 to 1 can be read"),
        (["--timeout", "0.3", "SELECT count(*) FROM range(100_000_000_000)"], 1, "longer than 0.3 s"),
        (["--output", "/nowhere/x.csv", NAMES], 1, "/nowhere/x.csv cannot be written: No such file or directory"),
    ],
)
def test_what_cannot_be_answered_is_said_in_a_line(lake: Path, arguments: list[str], status: int, says: str) -> None:
    done = ask(lake, *arguments)

    assert done.returncode == status
    assert done.stdout == ""
    assert says in done.stderr
    assert "Traceback" not in done.stderr


def test_a_wrong_setting_is_named_and_no_secret_is_shown(lake: Path) -> None:
    done = ask(lake, "SELECT 1", S3_ENDPOINT="nope", AWS_SECRET_ACCESS_KEY="very secret")

    assert done.returncode == 1
    assert "correct S3_ENDPOINT" in done.stderr
    assert "very secret" not in done.stderr
