"""Bucket administration is repeatable, keeps what others set, and says what a store cannot do."""

# ruff: noqa: N803 - the fake takes S3's own argument names

import asyncio
from types import TracebackType
from typing import Any, Self

import aioboto3
import httpx
import pytest
from botocore.exceptions import ClientError, EndpointConnectionError, NoCredentialsError
from pydantic import SecretStr

from cdc_shared.errors import Fatal, Transient
from cdc_shared.settings import ObjectStoreSettings
from cdc_shared.storage.object_store_admin import LIFECYCLE_RULE_ID, BucketState, ObjectStoreAdmin

pytestmark = pytest.mark.unit

METRICS_URL = "http://store:9327/metrics"
SETTINGS = ObjectStoreSettings(
    endpoint="http://store:8333",
    access_key_id="id",
    secret_access_key=SecretStr("hunter2"),
    region="us-east-1",
    metrics_url=METRICS_URL,
)


def client_error(code: str, status: int) -> ClientError:
    return ClientError(
        {"Error": {"Code": code, "Message": "m"}, "ResponseMetadata": {"HTTPStatusCode": status}},  # type: ignore[typeddict-item]
        "Operation",
    )


class FakeS3:
    """The operations that the code uses, on one bucket, with S3's own errors. `errors` answer an operation instead."""

    def __init__(self) -> None:
        self.exists = False
        self.encryption: str | None = None
        self.rules: list[dict[str, Any]] = []
        self.constraint: str | None = None
        self.objects: dict[str, str | None] = {}
        self.encrypts = True
        self.calls: list[str] = []
        self.errors: dict[str, Exception] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        return None

    def _called(self, operation: str) -> None:
        self.calls.append(operation)
        if operation in self.errors:
            raise self.errors[operation]

    async def head_bucket(self, Bucket: str) -> None:
        self._called("head_bucket")
        if not self.exists:
            raise client_error("404", 404)

    async def create_bucket(self, Bucket: str, CreateBucketConfiguration: dict[str, str] | None = None) -> None:
        self._called("create_bucket")
        self.exists = True
        self.constraint = (CreateBucketConfiguration or {}).get("LocationConstraint")

    async def get_bucket_encryption(self, Bucket: str) -> dict[str, Any]:
        self._called("get_bucket_encryption")
        if self.encryption is None:
            raise client_error("ServerSideEncryptionConfigurationNotFoundError", 404)
        default = {"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": self.encryption}}
        return {"ServerSideEncryptionConfiguration": {"Rules": [default]}}

    async def put_bucket_encryption(self, Bucket: str, ServerSideEncryptionConfiguration: dict[str, Any]) -> None:
        self._called("put_bucket_encryption")
        (rule,) = ServerSideEncryptionConfiguration["Rules"]
        self.encryption = rule["ApplyServerSideEncryptionByDefault"]["SSEAlgorithm"]

    async def put_object(self, Bucket: str, Key: str, Body: bytes) -> None:
        self._called("put_object")
        self.objects[Key] = self.encryption if self.encrypts else None

    async def head_object(self, Bucket: str, Key: str) -> dict[str, Any]:
        self._called("head_object")
        encryption = self.objects[Key]
        return {"ServerSideEncryption": encryption} if encryption else {}

    async def delete_object(self, Bucket: str, Key: str) -> None:
        self._called("delete_object")
        del self.objects[Key]

    async def get_bucket_lifecycle_configuration(self, Bucket: str) -> dict[str, Any]:
        self._called("get_bucket_lifecycle_configuration")
        if not self.rules:
            raise client_error("NoSuchLifecycleConfiguration", 404)
        return {"Rules": self.rules}

    async def put_bucket_lifecycle_configuration(self, Bucket: str, LifecycleConfiguration: dict[str, Any]) -> None:
        self._called("put_bucket_lifecycle_configuration")
        self.rules = LifecycleConfiguration["Rules"]


class FakeSession(aioboto3.Session):
    def __init__(self, s3: FakeS3) -> None:
        self.s3 = s3
        self.options: dict[str, Any] = {}

    def client(self, service: str, **options: Any) -> Any:  # type: ignore[override]
        self.options = options
        return self.s3


def ensure(s3: FakeS3, settings: ObjectStoreSettings = SETTINGS, **options: bool) -> BucketState:
    return asyncio.run(ObjectStoreAdmin(settings, FakeSession(s3)).ensure_bucket("lake", **options))


def test_a_new_bucket_is_encrypted_and_cleans_up_uploads() -> None:
    s3 = FakeS3()
    assert ensure(s3) == BucketState(created=True, encryption="AES256", aborts_uploads=True)
    assert s3.encryption == "AES256"
    assert s3.objects == {}, "the probe is gone"
    (rule,) = s3.rules
    assert (rule["ID"], rule["Status"]) == (LIFECYCLE_RULE_ID, "Enabled")
    assert rule["AbortIncompleteMultipartUpload"] == {"DaysAfterInitiation": 1}
    assert s3.constraint is None


def test_a_second_time_changes_nothing() -> None:
    s3 = FakeS3()
    ensure(s3)
    s3.calls.clear()
    assert ensure(s3) == BucketState(created=False, encryption="AES256", aborts_uploads=True)
    assert not [call for call in s3.calls if call.startswith(("put_bucket", "create"))]


def test_what_others_set_is_kept() -> None:
    s3 = FakeS3()
    expire = {"ID": "theirs", "Status": "Enabled", "Filter": {"Prefix": "tmp/"}, "Expiration": {"Days": 7}}
    s3.exists, s3.encryption, s3.rules = True, "aws:kms", [expire]
    assert ensure(s3).encryption == "aws:kms"
    assert s3.rules[0] == expire
    assert [rule["ID"] for rule in s3.rules] == ["theirs", LIFECYCLE_RULE_ID]


def test_our_rule_switched_off_is_switched_on_again() -> None:
    s3 = FakeS3()
    ensure(s3)
    s3.rules[0]["Status"] = "Disabled"
    ensure(s3)
    assert [(rule["ID"], rule["Status"]) for rule in s3.rules] == [(LIFECYCLE_RULE_ID, "Enabled")]


def test_a_region_is_a_constraint_except_the_default_one() -> None:
    s3 = FakeS3()
    ensure(s3, SETTINGS.model_copy(update={"region": "eu-central-1"}))
    assert s3.constraint == "eu-central-1"


def test_a_faster_colleague_is_no_error_but_a_stranger_is() -> None:
    s3 = FakeS3()
    s3.errors["create_bucket"] = client_error("BucketAlreadyOwnedByYou", 409)
    assert ensure(s3).created is False
    s3.errors["create_bucket"] = client_error("BucketAlreadyExists", 409)
    with pytest.raises(Fatal, match="belongs to another account"):
        ensure(s3)


def test_a_store_that_cannot_encrypt_is_refused_unless_told_otherwise() -> None:
    s3 = FakeS3()
    s3.errors["put_bucket_encryption"] = client_error("NotImplemented", 501)
    with pytest.raises(Fatal, match=r"cannot encrypt at rest.*MINIO_KMS_SECRET_KEY"):
        ensure(s3)
    assert ensure(s3, encrypt=False).encryption is None


def test_a_store_that_takes_the_setting_without_a_key_is_found_out_each_time() -> None:
    s3 = FakeS3()
    s3.errors["put_object"] = client_error("InternalError", 500)
    for _ in range(2):
        with pytest.raises(Transient, match=r"takes no encrypted object.*WEED_S3_SSE_KEK"):
            ensure(s3)
    del s3.errors["put_object"]
    s3.encrypts = False
    with pytest.raises(Fatal, match=r"does not encrypt.*WEED_S3_SSE_KEK"):
        ensure(s3)


@pytest.mark.parametrize("code", ["NotImplemented", "MalformedXML", "InvalidArgument"])
def test_a_store_without_the_lifecycle_rule_is_used_all_the_same(code: str) -> None:
    s3 = FakeS3()
    s3.errors["put_bucket_lifecycle_configuration"] = client_error(code, 400)
    assert ensure(s3) == BucketState(created=True, encryption="AES256", aborts_uploads=False)


@pytest.mark.parametrize(
    ("error", "kind", "part"),
    [
        (client_error("403", 403), Fatal, "refuses the credentials"),
        (client_error("InvalidBucketName", 400), Fatal, "3 to 63"),
        (client_error("SlowDown", 503), Transient, "SlowDown"),
        (client_error("500", 500), Transient, "500"),
        (EndpointConnectionError(endpoint_url="http://store:8333/lake"), Transient, "Could not connect"),
        (NoCredentialsError(), Fatal, "set AWS_ACCESS_KEY_ID"),
        (TimeoutError("timed out"), Transient, "timed out"),
    ],
)
def test_errors_by_kind(error: Exception, kind: type[Exception], part: str) -> None:
    s3 = FakeS3()
    s3.errors["head_bucket"] = error
    with pytest.raises(kind, match=rf"bucket lake: .*{part}") as caught:
        ensure(s3)
    assert "hunter2" not in str(caught.value)


def test_the_client_takes_the_settings() -> None:
    s3 = FakeS3()
    session = FakeSession(s3)
    asyncio.run(ObjectStoreAdmin(SETTINGS, session).ensure_bucket("lake"))
    assert session.options["endpoint_url"] == "http://store:8333"
    assert session.options["aws_secret_access_key"] == "hunter2"
    assert session.options["config"].s3 == {"addressing_style": "path"}


def free(page: str, status: int = 200, settings: ObjectStoreSettings = SETTINGS) -> int | None:
    def answer(request: httpx.Request) -> httpx.Response:
        assert str(request.url) == METRICS_URL
        return httpx.Response(status, text=page)

    admin = ObjectStoreAdmin(settings, FakeSession(FakeS3()), httpx.MockTransport(answer))
    return asyncio.run(admin.free_bytes())


def test_free_capacity_of_seaweedfs_is_summed_over_its_directories() -> None:
    page = (
        "# TYPE SeaweedFS_volumeServer_resource gauge\n"
        'SeaweedFS_volumeServer_resource{name="/d1",type="all"} 9e+10\n'
        'SeaweedFS_volumeServer_resource{name="/d1",type="avail"} 2e+10\n'
        'SeaweedFS_volumeServer_resource{name="/d2",type="avail"} 3e+10\n'
    )
    assert free(page) == 50_000_000_000


def test_free_capacity_of_minio() -> None:
    assert free('minio_cluster_capacity_usable_free_bytes{server="a"} 123456789\n') == 123_456_789


@pytest.mark.parametrize(("page", "status"), [("", 200), ("other 1\n", 200), ("{{{", 200), ("", 403), ("", 500)])
def test_capacity_is_unknown_where_nothing_tells(page: str, status: int) -> None:
    assert free(page, status) is None


def test_capacity_is_unknown_without_a_page() -> None:
    assert free("", settings=SETTINGS.model_copy(update={"metrics_url": None})) is None
