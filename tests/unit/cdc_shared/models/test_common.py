"""Pipeline specs: what is accepted, and that every refusal names place, field and remedy and shows no secret."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from cdc_shared.models.common import (
    SENTINEL_COLLECTION,
    BatchSpec,
    InvalidSpec,
    MaintenanceSpec,
    PipelineSpec,
    SinkSpec,
    SourceSpec,
    decode_spec,
    encode_spec,
    load_spec,
)

pytestmark = pytest.mark.unit

MINIMAL = "name: shop\nsource:\n  connection: secret:mongodb-uri\n  database: shop\n"
VALIDATION = "quality:\n  validation:\n    - {rule: required, path: /customer}\n"
KEY_REFUSED = "quality.transformation rule 1 (hash).key is not a reference; write secret:<name> or env:<VARIABLE>"


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "shop.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_minimal_spec_has_the_documented_defaults(tmp_path: Path) -> None:
    spec = load_spec(written(tmp_path, MINIMAL))
    assert spec == PipelineSpec(
        name="shop",
        source=SourceSpec(
            connection="secret:mongodb-uri",
            database="shop",
            include_collections=(),
            exclude_collections=(),
            snapshot_mode="initial",
            capture_mode="change_streams_update_full",
        ),
        sink=SinkSpec(root=None, mode="deletion_vectors"),
        batch=BatchSpec(max_rows=50_000, max_bytes=64 * 1024 * 1024, max_seconds=2.0),
        maintenance=MaintenanceSpec(retention_days=30, target_file_mb=128, cpu_share=0.25, max_mb_per_s=50),
        topic_partitions=1,
    )


def test_a_full_spec(tmp_path: Path) -> None:
    spec = load_spec(
        written(
            tmp_path,
            MINIMAL
            + "  include_collections: [orders, order.items]\n  snapshot_mode: when_needed\n"
            + "sink: {root: s3://lake/delta, mode: copy_on_write}\n"
            + "batch: {max_rows: 10, max_bytes: 65536, max_seconds: 0.1}\ntopic_partitions: 4\n",
        )
    )
    assert spec.source.include_collections == ("orders", "order.items")
    assert (spec.sink.root, spec.sink.mode) == ("s3://lake/delta", "copy_on_write")
    assert (spec.batch.max_seconds, spec.topic_partitions) == (0.1, 4)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        (MINIMAL + "topic_partition: 2\n", ["topic_partition is not a known field", "did you mean topic_partitions?"]),
        (MINIMAL + "  databse: x\n", ["source.databse", "did you mean database?"]),
        (MINIMAL + "zzz: 1\n", ["zzz is not a known field", "known: name, source, sink"]),
        ("name: shop\n", ["source is missing; add it"]),
        (MINIMAL.replace("name: shop", "name: Shop_1"), ["name must be 1 to 41 of a-z"]),
        (MINIMAL + "batch: {max_seconds: 0.01}\n", ["batch.max_seconds", "greater than or equal to 0.1"]),
        (MINIMAL + "maintenance: {retention_days: 0}\n", ["maintenance.retention_days", "greater than or equal to 1"]),
        (MINIMAL + "maintenance: {retention: 9}\n", ["maintenance.retention", "did you mean retention_days?"]),
        (MINIMAL + "topic_partitions: 0\n", ["topic_partitions", "greater than or equal to 1"]),
        (MINIMAL + "sink: {mode: dv}\n", ["sink.mode", "'deletion_vectors' or 'copy_on_write'"]),
        (MINIMAL + "sink: {root: lake/delta}\n", ["sink.root", "absolute path"]),
        (MINIMAL + "sink: {root: 'ftp://x/y'}\n", ["sink.root", "s3://bucket/prefix"]),
        (MINIMAL + "  include_collections: [a]\n  exclude_collections: [b]\n", ["source", "not both"]),
        (MINIMAL + "  include_collections: [shop.orders]\n", ["drop the leading shop."]),
        (MINIMAL + "  include_collections: [system.users]\n", ["system."]),
        (MINIMAL + "  include_collections: [cdc_heartbeat]\n", ["cdc_heartbeat", "take it off the list"]),
        (MINIMAL + "  exclude_collections: [a, cdc_heartbeat]\n", ["cdc_heartbeat", "take it off the list"]),
        (MINIMAL + "  capture_mode: change_streams\n", ["source.capture_mode"]),
        (MINIMAL.replace("database: shop", "database: a/b"), ["source.database", "MongoDB database name"]),
        (MINIMAL.replace("database: shop", "database: _dead_letters"), ["source.database", "rename the database"]),
        (MINIMAL.replace("database: shop", "database: _reconciliation"), ["source.database", "rename the database"]),
        (
            MINIMAL + VALIDATION + "    - {rule: required, path: customer}\n",
            [": quality.validation rule 2 (required).path must begin"],
        ),
        (MINIMAL + VALIDATION + "    - {rule: range, name: n, path: /n, min: []}\n", ["rule 2 n (range).min"]),
        (
            MINIMAL + VALIDATION + "    - {rule: required, name: 'a b', path: /n}\n",
            ["rule 2 (required).name must be 1"],
        ),
        (
            MINIMAL + VALIDATION + "    - {rule: range, name: n, path: /n}\n",
            ["quality.validation rule 2 n (range /n): has no"],
        ),
        (MINIMAL + VALIDATION + "    - {rule: nosuch, path: /n}\n", ["quality.validation rule 2: "]),
        (MINIMAL + "quality: {transformation: [{rule: hash, path: /a, key: hunter2}]}\n", [KEY_REFUSED]),
        (
            MINIMAL + "quality: {transformation: [{rule: include, paths: [a]}]}\n",
            ["(include).paths entry 1 must begin"],
        ),
        (MINIMAL + "  include_collections: [a, 1]\n", ["source.include_collections entry 2"]),
        (MINIMAL + "name: other\n", ["line 5, column 1", "name is given twice"]),
        ("name: [shop\n", ["line 2", "is not valid YAML"]),
        ("- a\n", ["holds no mapping"]),
        ("", ["holds no mapping"]),
        ("name: \x01\n", ["is not valid YAML"]),
    ],
)
def test_a_refusal_names_file_field_and_remedy(tmp_path: Path, text: str, parts: list[str]) -> None:
    path = written(tmp_path, text)
    with pytest.raises(InvalidSpec) as caught:
        load_spec(path)
    message = str(caught.value)
    assert message.startswith(f"{path}:")
    assert "hunter2" not in message
    for part in parts:
        assert part in message


def test_every_problem_is_named_at_once(tmp_path: Path) -> None:
    with pytest.raises(InvalidSpec) as caught:
        load_spec(written(tmp_path, "name: X\nsource: {connection: nope}\nextra: 1\n"))
    for field in ("name", "source.connection", "source.database", "extra"):
        assert field in str(caught.value)


@pytest.mark.parametrize("connection", ["mongodb://u:hunter2@h/", "hunter2", "secret:", "env:"])
def test_a_connection_string_in_the_spec_is_refused_and_not_shown(tmp_path: Path, connection: str) -> None:
    path = written(tmp_path, f"name: shop\nsource: {{connection: '{connection}', database: shop}}\n")
    with pytest.raises(InvalidSpec, match=r"source\.connection is not a reference; write secret:<name>") as caught:
        load_spec(path)
    assert "hunter2" not in f"{caught.value!r} {caught.value.__context__ and ''}"
    with pytest.raises(ValidationError) as direct:
        SourceSpec(connection=connection, database="shop")
    assert "hunter2" not in str(direct.value)


@pytest.mark.parametrize(
    "root",
    [
        *("s3://[::1", "s3://a\0b/x", "s3://a b/x", "s3://a?b/x", "s3://a:9/x", "s3://../x", "s3:///x", "s3://a/x\n"),
        *("file://host/x", "file:x", "//x", "//[x", "/a\0", "gs://", "az://[x"),
    ],
)
def test_a_root_means_the_same_to_everybody_who_reads_it(root: str) -> None:
    """A space or a NUL in a bucket's name is a panic of the store's client, brackets are an error of urlsplit's."""
    with pytest.raises(ValidationError, match="s3://bucket/prefix"):
        SinkSpec(root=root)


@pytest.mark.parametrize("root", ["s3://b/", "s3://b", "gs://my_bucket.example.com/a b/ü", "file://localhost/x", "/"])
def test_other_roots_are_taken(root: str) -> None:
    assert SinkSpec(root=root).root == root


@pytest.mark.parametrize("number", [float("inf"), float("nan"), 0.0])
def test_a_limit_is_a_number_that_json_has(number: float) -> None:
    with pytest.raises(ValidationError):
        MaintenanceSpec(max_mb_per_s=number)


def test_credentials_in_the_root_are_refused() -> None:
    with pytest.raises(ValidationError, match=r"do not belong in sink\.root") as caught:
        SinkSpec(root="s3://key:hunter2@lake/delta")
    assert "hunter2" not in str(caught.value)


def test_unreadable_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidSpec, match=r"none\.yaml: cannot be read: No such file"):
        load_spec(tmp_path / "none.yaml")
    (tmp_path / "latin.yaml").write_bytes(b"name: \xff\n")
    with pytest.raises(InvalidSpec, match="not UTF-8"):
        load_spec(tmp_path / "latin.yaml")


def test_specs_are_frozen() -> None:
    spec = PipelineSpec(name="a", source=SourceSpec(connection="env:X", database="d"))
    with pytest.raises(ValidationError, match="frozen"):
        spec.name = "b"
    assert hash(spec) == hash(spec.model_copy())


@pytest.mark.parametrize("name", ["a", "a" * 41, "shop-2", "a--b"])
def test_names_that_are_allowed(name: str) -> None:
    assert PipelineSpec(name=name, source=SourceSpec(connection="env:X", database="d")).name == name


@pytest.mark.parametrize("name", ["", "a" * 42, "A", "1a", "-a", "a_b", "a.b", "a\n", "é"])
def test_names_that_are_not(name: str) -> None:
    with pytest.raises(ValidationError):
        PipelineSpec(name=name, source=SourceSpec(connection="env:X", database="d"))


names = st.text(st.characters(codec="utf-8", exclude_characters="$\x00"), min_size=1, max_size=20).filter(
    lambda name: not name.startswith(("system.", "d."))
)


@given(
    collections=st.lists(names, max_size=3),
    root=st.sampled_from([None, "s3://b/p", "/t", "file:///t"]),
    rows=st.integers(1, 5_000_000),
    seconds=st.floats(0.1, 3600),
)
def test_encoding_round_trips(collections: list[str], root: str | None, rows: int, seconds: float) -> None:
    spec = PipelineSpec(
        name="shop",
        source=SourceSpec(connection="env:X", database="d", include_collections=tuple(collections)),
        sink=SinkSpec(root=root),
        batch=BatchSpec(max_rows=rows, max_seconds=seconds),
    )
    assert decode_spec("shop", encode_spec(spec)) == spec


@pytest.mark.parametrize(
    ("value", "part"),
    [(b"{", "Invalid JSON"), (b"\xff", "Invalid JSON"), (b"{}", "name is missing"), (b"[]", "the spec")],
)
def test_what_the_topic_holds_wrongly_is_refused(value: bytes, part: str) -> None:
    with pytest.raises(InvalidSpec, match=r"spec of pipeline 'shop' in cdc\.pipelines") as caught:
        decode_spec("shop", value)
    assert part in str(caught.value)


def test_a_spec_under_another_key_is_refused() -> None:
    other: dict[str, Any] = {"name": "crm", "source": {"connection": "env:X", "database": "d"}}
    with pytest.raises(InvalidSpec, match="its name is 'crm'"):
        decode_spec("shop", encode_spec(PipelineSpec.model_validate(other)))


def test_which_collections_come_to_tables() -> None:
    everything = SourceSpec(connection="env:X", database="db")
    assert everything.captures("orders")
    assert not everything.captures(SENTINEL_COLLECTION)
    some = SourceSpec(connection="env:X", database="db", include_collections=("orders",))
    assert some.captures("orders")
    assert not some.captures("Orders")
    most = SourceSpec(connection="env:X", database="db", exclude_collections=("orders",))
    assert most.captures("customers")
    assert not most.captures("orders")


def test_with_a_history_no_collection_has_the_name_of_one(tmp_path: Path) -> None:
    text = MINIMAL + "  include_collections: [orders, orders__changes]\nsink: {history: %s}\n"
    assert load_spec(written(tmp_path, text % "false")).source.include_collections == ("orders", "orders__changes")
    with pytest.raises(InvalidSpec, match="whose name ends in __changes"):
        load_spec(written(tmp_path, text % "true"))
