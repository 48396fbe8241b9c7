"""What the commands say before they do anything."""

from __future__ import annotations

import importlib
import signal
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner

import delta_writer.command_line as command_line
from cdc_shared.errors import Fatal
from cdc_shared.kafka.spec_topic import UnknownPipeline
from cdc_shared.models.common import InvalidSpec
from delta_writer.service import WriterService

pytestmark = pytest.mark.unit


@pytest.fixture
def taken_back(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", "localhost:9092")
    names: list[str] = []
    monkeypatch.setattr(command_line, "delete_spec", lambda servers, name, topic: names.append(name))
    return names


def published(monkeypatch: pytest.MonkeyPatch, answer: Exception | None) -> None:
    def read(*_: Any) -> Any:
        if answer is not None:
            raise answer

    monkeypatch.setattr(command_line, "read_spec", read)


def run(*words: str) -> Any:
    return CliRunner().invoke(command_line.app, list(words))


@pytest.mark.parametrize("answer", [None, InvalidSpec("an older version's")])
def test_a_spec_that_is_there_is_taken_back_usable_or_not(monkeypatch, taken_back, answer):
    published(monkeypatch, answer)
    assert run("unpublish", "shop").output == "pipeline shop taken back\n"
    assert taken_back == ["shop"]


def test_taking_back_what_is_not_there_says_so(monkeypatch, taken_back):
    published(monkeypatch, UnknownPipeline("no shopp"))
    result = run("unpublish", "shopp")
    assert (result.exit_code, taken_back) == (0, [])
    assert "pipeline shopp is not in cdc.pipelines" in result.output


def test_restoring_a_pipeline_that_was_taken_back_asks_for_its_spec(monkeypatch, taken_back):
    published(monkeypatch, UnknownPipeline("publish its spec"))
    result = run("restore", "shop", "orders", "--version", "1")
    assert result.exit_code == 1
    assert "--spec" in result.output
    assert "publish" not in result.output


def test_loading_the_entry_point_leaves_ctrl_c_as_it_was(monkeypatch):
    monkeypatch.delitem(sys.modules, "delta_writer.__main__", raising=False)
    before = signal.getsignal(signal.SIGINT)
    importlib.import_module("delta_writer.__main__")
    assert signal.getsignal(signal.SIGINT) is before


def test_a_cache_directory_that_cannot_be_is_named(tmp_path: Path):
    (tmp_path / "file").touch()
    settings: Any = SimpleNamespace(
        kafka=SimpleNamespace(bootstrap_servers="localhost:1"),
        writer=SimpleNamespace(cache_dir=tmp_path / "file" / "cache", http_host="127.0.0.1", http_port=0),
    )
    service = WriterService.__new__(WriterService)  # nothing of it is reached
    service._settings = settings
    with pytest.raises(Fatal, match="file/cache: Not a directory; set WRITER_CACHE_DIR"):
        service.run()
