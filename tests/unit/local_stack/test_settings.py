"""What the user may set: the environment, then .env, then defaults; mistakes are named."""

from pathlib import Path

import pytest

from local_stack.errors import StackError
from local_stack.ports import PORTS
from local_stack.settings import StackSettings, embedded_mongodb_uri, load_settings

pytestmark = pytest.mark.unit

KEPT = {spec.variable: spec.default for spec in PORTS}


def test_nothing_set_gives_the_defaults(tmp_path: Path) -> None:
    assert load_settings(tmp_path, {}, {}) == StackSettings()
    assert StackSettings().sample


def test_the_environment_wins_over_the_file_which_wins_over_the_defaults(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("S3_PORT=9000\nPOSTGRES_PORT=6000\nKAFKA_HEAP_MB=1024\nS3_BUCKET=\n")

    settings = load_settings(tmp_path, {"S3_PORT": "9001"}, {})

    assert settings.ports == {"S3_PORT": 9001, "POSTGRES_PORT": 6000}
    assert settings.kafka_heap_mb == 1024
    assert settings.bucket == "cdc"


def test_our_own_choices_in_the_environment_are_no_wishes(tmp_path: Path) -> None:
    """A shell that has sourced .local/endpoints.env carries them."""
    environment = {"MONGODB_URI": embedded_mongodb_uri(27017), "WRITER_HTTP_PORT": "8090"}

    settings = load_settings(tmp_path, environment, KEPT)

    assert settings.mongodb_uri is None
    assert settings.ports == {}


def test_the_users_own_mongodb_is_used_and_gets_no_sample_unless_asked(tmp_path: Path) -> None:
    uri = "mongodb://db.example/?replicaSet=rs0"

    settings = load_settings(tmp_path, {"MONGODB_URI": uri}, KEPT)

    assert settings.mongodb_uri == uri
    assert not settings.sample
    assert load_settings(tmp_path, {"MONGODB_URI": uri, "SAMPLE": "1"}, KEPT).sample


@pytest.mark.parametrize("off", ["0", "false", "No"])
def test_the_sample_can_be_left_out(tmp_path: Path, off: str) -> None:
    assert not load_settings(tmp_path, {"SAMPLE": off}, {}).sample


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("S3_PORT", "tcp://10.0.0.1:9000"),
        ("S3_PORT", "0"),
        ("S3_PORT", "65536"),
        ("KAFKA_HEAP_MB", "64"),
        ("CONNECT_HEAP_MB", "lots"),
        ("SAMPLE_RATE", "0"),
        ("SAMPLE_RATE", "fast"),
        ("MONGODB_URI", "postgresql://user:hunter2@db"),
    ],
)
def test_a_wrong_value_is_refused_by_name(tmp_path: Path, variable: str, value: str) -> None:
    with pytest.raises(StackError, match=variable) as caught:
        load_settings(tmp_path, {variable: value}, {})

    assert "hunter2" not in str(caught.value)


def test_what_else_is_in_the_file_is_for_the_writer_and_the_api(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("MASK_KEY=a, b%c=\nOTHER=file\nS3_PORT=9000\nSAMPLE=0\n")

    assert load_settings(tmp_path, {"OTHER": "shell", "HOME": "/root"}, {}).variables == {
        "MASK_KEY": "a, b%c=",
        "OTHER": "shell",
    }


@pytest.mark.parametrize("line", ["MASK_KEY='a\"b'", "MASK_KEY='a ;b'", "MASK-KEY=a"])
def test_what_cannot_be_handed_on_is_named_and_not_shown(tmp_path: Path, line: str) -> None:
    (tmp_path / ".env").write_text(f"{line}\n")

    with pytest.raises(StackError, match=r"^MASK.KEY in \.env (has|is)") as caught:
        load_settings(tmp_path, {}, {})
    assert line.partition("=")[2].strip("'") not in str(caught.value) or line.startswith("MASK-KEY")
