"""Bucket administration and the data path together, on the running stack's object store."""

import asyncio
import uuid
from collections.abc import Iterator

import aioboto3
import obstore
import pytest
from obstore import exceptions as obstore_errors
from stack_endpoints import Stack

from cdc_shared.errors import Fatal, Transient
from cdc_shared.settings import ObjectStoreSettings
from cdc_shared.storage.object_store import (
    MULTIPART_CHUNK_BYTES,
    MULTIPART_CONCURRENCY,
    map_store_error,
    open_store,
    table_url,
)
from cdc_shared.storage.object_store_admin import LIFECYCLE_RULE_ID, ObjectStoreAdmin

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def settings(stack: Stack) -> ObjectStoreSettings:
    settings: ObjectStoreSettings = stack.object_store
    return settings


def s3_client(settings: ObjectStoreSettings):  # type: ignore[no-untyped-def]
    assert settings.secret_access_key is not None
    return aioboto3.Session().client(
        "s3",
        endpoint_url=settings.endpoint,
        region_name=settings.region,
        aws_access_key_id=settings.access_key_id,
        aws_secret_access_key=settings.secret_access_key.get_secret_value(),
    )


async def drop_bucket(settings: ObjectStoreSettings, bucket: str) -> None:
    async with s3_client(settings) as client:
        listed = await client.list_objects_v2(Bucket=bucket)
        for item in listed.get("Contents", []):
            await client.delete_object(Bucket=bucket, Key=item["Key"])
        await client.delete_bucket(Bucket=bucket)


@pytest.fixture(scope="module")
def bucket(settings: ObjectStoreSettings) -> Iterator[str]:
    """A bucket of these tests' own, made by the code under test."""
    name = f"admin-test-{uuid.uuid4().hex[:12]}"
    state = asyncio.run(ObjectStoreAdmin(settings).ensure_bucket(name))
    assert (state.created, state.encryption) == (True, "AES256")
    yield name
    asyncio.run(drop_bucket(settings, name))


def test_a_bucket_is_made_once_encrypted_and_cleaned_up(settings: ObjectStoreSettings, bucket: str) -> None:
    again = asyncio.run(ObjectStoreAdmin(settings).ensure_bucket(bucket))
    assert (again.created, again.encryption) == (False, "AES256")

    async def inspect() -> tuple[list[str], str]:
        async with s3_client(settings) as client:
            await client.put_object(Bucket=bucket, Key="probe", Body=b"x")
            head = await client.head_object(Bucket=bucket, Key="probe")
            rules: list[str] = []
            if again.aborts_uploads:
                lifecycle = await client.get_bucket_lifecycle_configuration(Bucket=bucket)
                rules = [rule["ID"] for rule in lifecycle["Rules"]]
            return rules, head["ServerSideEncryption"]

    rules, encryption = asyncio.run(inspect())
    assert encryption == "AES256"
    assert rules == ([LIFECYCLE_RULE_ID] if again.aborts_uploads else [])


def test_the_data_path_writes_once_and_reads_back(settings: ObjectStoreSettings, bucket: str) -> None:
    store = open_store(table_url(f"s3://{bucket}/delta", "p", "my db", "a/b"), settings)
    obstore.put(store, "_delta_log/0.json", b"first", mode="create")
    with pytest.raises(obstore_errors.AlreadyExistsError):
        obstore.put(store, "_delta_log/0.json", b"second", mode="create")
    assert bytes(obstore.get(store, "_delta_log/0.json").bytes()) == b"first"

    large = bytes(range(256)) * (3 * MULTIPART_CHUNK_BYTES // 256 + 1)
    obstore.put(store, "large", large, chunk_size=MULTIPART_CHUNK_BYTES, max_concurrency=MULTIPART_CONCURRENCY)
    assert bytes(obstore.get(store, "large").bytes()) == large

    root = open_store(f"s3://{bucket}", settings)
    keys = {item["path"] for batch in obstore.list(root, "delta") for item in batch}
    assert keys == {"delta/p/my_x20_db/a_x2f_b/_delta_log/0.json", "delta/p/my_x20_db/a_x2f_b/large"}


def test_refused_credentials_are_fatal_on_both_paths(settings: ObjectStoreSettings, bucket: str) -> None:
    stranger = settings.model_copy(update={"access_key_id": "nobody"})
    with pytest.raises(Fatal, match="AWS_ACCESS_KEY_ID"):
        asyncio.run(ObjectStoreAdmin(stranger).ensure_bucket(bucket))
    with pytest.raises(obstore_errors.BaseError) as caught:
        obstore.put(open_store(f"s3://{bucket}", stranger), "x", b"1")
    mapped = map_store_error(caught.value)
    assert isinstance(mapped, Fatal)
    assert "AWS_ACCESS_KEY_ID" in str(mapped)


def test_a_store_that_is_away_is_transient_on_both_paths(settings: ObjectStoreSettings) -> None:
    nowhere = settings.model_copy(update={"endpoint": "http://127.0.0.1:1"})
    with pytest.raises(Transient):
        asyncio.run(ObjectStoreAdmin(nowhere).ensure_bucket("any-bucket"))
    with pytest.raises(obstore_errors.BaseError) as caught:
        obstore.get(open_store("s3://any-bucket", nowhere), "x")
    assert isinstance(map_store_error(caught.value), Transient)


def test_a_name_that_s3_forbids_is_explained(settings: ObjectStoreSettings) -> None:
    with pytest.raises(Fatal, match="3 to 63"):
        asyncio.run(ObjectStoreAdmin(settings).ensure_bucket("Not_Allowed"))
