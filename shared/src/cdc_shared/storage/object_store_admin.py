"""Administration of an S3-compatible store with aioboto3: buckets, encryption at rest, lifecycle, free capacity.

Everything here may be repeated: what is as it should be is left alone, and rules that others set are kept. The data
path is in `object_store`; docs/adr/0002-two-s3-clients.md says why there are two libraries.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import aioboto3
import httpx
from aiobotocore.config import AioConfig
from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError, NoCredentialsError
from botocore.exceptions import ConnectionError as NoConnectionError
from prometheus_client.parser import text_string_to_metric_families
from pydantic import SecretStr

from cdc_shared.errors import CdcError, Fatal, Transient
from cdc_shared.logging.redaction import redact_text
from cdc_shared.logging.structured_logger import get_logger
from cdc_shared.settings import ObjectStoreSettings
from cdc_shared.storage.object_store import map_store_error

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager

    from types_aiobotocore_s3 import S3Client
    from types_aiobotocore_s3.literals import BucketLocationConstraintType
    from types_aiobotocore_s3.type_defs import LifecycleRuleOutputTypeDef, LifecycleRuleTypeDef

LIFECYCLE_RULE_ID = "cdc-abort-incomplete-uploads"
ABORT_UPLOADS_AFTER_DAYS = 1
PROBE_KEY = ".cdc-encryption-probe"

CONNECT_TIMEOUT_S = 5
READ_TIMEOUT_S = 30
METRICS_TIMEOUT_S = 5

# Free bytes by the name of a store's metric, and the labels that pick its samples. MinIO 2 and 3, SeaweedFS volume
# servers.
_FREE_BYTES_METRICS: dict[str, dict[str, str]] = {
    "SeaweedFS_volumeServer_resource": {"type": "avail"},
    "minio_cluster_capacity_usable_free_bytes": {},
    "minio_cluster_health_capacity_usable_free_bytes": {},
}
_KEY_REMEDY = "give it an encryption key (WEED_S3_SSE_KEK for SeaweedFS, MINIO_KMS_SECRET_KEY for MinIO)"
_NOT_OFFERED = ("NotImplemented", "MethodNotAllowed", "MalformedXML", "InvalidArgument", "XNotImplemented")

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class BucketState:
    """What `ensure_bucket` found or made."""

    created: bool
    """Whether this call made it."""
    encryption: str | None
    """The default encryption: `AES256`, `aws:kms`, or None when it was not asked for and there is none."""
    aborts_uploads: bool
    """Whether unfinished multipart uploads go away by themselves; False where the store offers no such rule."""


class ObjectStoreAdmin:
    """Administers the store that `settings` name."""

    def __init__(
        self,
        settings: ObjectStoreSettings,
        session: aioboto3.Session | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        """`session` makes the S3 client, `transport` carries the request for the metrics page; tests pass their own."""
        self._settings = settings
        self._session = session or aioboto3.Session()
        self._transport = transport

    async def ensure_bucket(self, bucket: str, *, encrypt: bool = True) -> BucketState:
        """Make the bucket when it is missing, encrypt new objects by default (SSE-S3), abort uploads left for a day.

        With `encrypt` a probe object is written, looked at and deleted: a store may take the setting and have no key.
        Raises `Fatal` for refused credentials, a bucket of somebody else, or, with `encrypt`, a store that cannot
        encrypt; `Transient` when the store is away.
        """
        async with self._client() as client:
            try:
                created = await self._ensure_exists(client, bucket)
                encryption = await self._ensure_encryption(client, bucket, encrypt)
                if encrypt:
                    await _check_encryption(client, bucket)
                aborts_uploads = await self._ensure_lifecycle(client, bucket)
            except (ClientError, BotoCoreError, OSError) as error:
                raise _mapped(error, f"bucket {bucket}") from error
        return BucketState(created, encryption, aborts_uploads)

    async def free_bytes(self) -> int | None:
        """Bytes that may still be written, where S3_METRICS_URL leads to a page that tells; None where nothing does."""
        url = self._settings.metrics_url
        if url is None:
            return None
        try:
            async with httpx.AsyncClient(timeout=METRICS_TIMEOUT_S, transport=self._transport) as http:
                page = (await http.get(url)).raise_for_status().text
            samples = [sample for family in text_string_to_metric_families(page) for sample in family.samples]
        except (httpx.HTTPError, ValueError) as error:
            log.warning("free capacity unknown", url=url, reason=redact_text(str(error) or type(error).__name__))
            return None
        free = [
            sample.value
            for sample in samples
            if sample.name in _FREE_BYTES_METRICS and _FREE_BYTES_METRICS[sample.name].items() <= sample.labels.items()
        ]
        return int(sum(free)) if free else None

    async def _ensure_exists(self, client: S3Client, bucket: str) -> bool:
        try:
            await client.head_bucket(Bucket=bucket)
            return False
        except ClientError as error:
            if _status(error) != 404:
                raise
        try:
            if self._settings.region == "us-east-1":  # S3 refuses its own default region as a constraint
                await client.create_bucket(Bucket=bucket)
            else:
                region = cast("BucketLocationConstraintType", self._settings.region)
                await client.create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": region})
        except ClientError as error:
            if _code(error) == "BucketAlreadyOwnedByYou":
                return False  # somebody of ours was faster
            if _code(error) == "BucketAlreadyExists":
                raise Fatal(f"bucket {bucket} belongs to another account: choose another name for the root") from error
            raise
        return True

    async def _ensure_encryption(self, client: S3Client, bucket: str, encrypt: bool) -> str | None:
        current = await _encryption(client, bucket)
        if current is not None or not encrypt:
            return current
        try:
            await client.put_bucket_encryption(
                Bucket=bucket,
                ServerSideEncryptionConfiguration={
                    "Rules": [{"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"}}]
                },
            )
        except ClientError as error:
            if _code(error) in _NOT_OFFERED:
                raise Fatal(
                    f"bucket {bucket}: the store cannot encrypt at rest ({_code(error)}): {_KEY_REMEDY}"
                ) from error
            raise
        return await _encryption(client, bucket)

    async def _ensure_lifecycle(self, client: S3Client, bucket: str) -> bool:
        rules = await _lifecycle_rules(client, bucket)
        if any(rule.get("AbortIncompleteMultipartUpload") and rule["Status"] == "Enabled" for rule in rules):
            return True
        ours: LifecycleRuleTypeDef = {
            "ID": LIFECYCLE_RULE_ID,
            "Status": "Enabled",
            "Filter": {"Prefix": ""},
            "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": ABORT_UPLOADS_AFTER_DAYS},
        }
        kept = [rule for rule in rules if rule.get("ID") != LIFECYCLE_RULE_ID]
        try:
            await client.put_bucket_lifecycle_configuration(
                Bucket=bucket, LifecycleConfiguration={"Rules": [*kept, ours]}
            )
        except ClientError as error:
            if _code(error) not in _NOT_OFFERED:
                raise
            # MinIO, for one, has no such rule and drops stale uploads by itself.
            log.warning("no lifecycle rule for unfinished uploads", bucket=bucket, reason=_code(error))
            return False
        return True

    def _client(self) -> AbstractAsyncContextManager[S3Client]:
        settings = self._settings
        client: AbstractAsyncContextManager[S3Client] = self._session.client(
            "s3",
            endpoint_url=settings.endpoint,
            region_name=settings.region,
            aws_access_key_id=settings.access_key_id,
            aws_secret_access_key=_revealed(settings.secret_access_key),
            aws_session_token=_revealed(settings.session_token),
            config=AioConfig(
                connect_timeout=CONNECT_TIMEOUT_S,
                read_timeout=READ_TIMEOUT_S,
                retries={"mode": "standard", "max_attempts": 3},
                s3={"addressing_style": "path" if settings.endpoint else "auto"},
                request_checksum_calculation="when_required",  # not every S3-compatible store knows the newer checksums
                response_checksum_validation="when_required",
            ),
        )
        return client


def _revealed(secret: SecretStr | None) -> str | None:
    return secret.get_secret_value() if secret is not None else None


async def _check_encryption(client: S3Client, bucket: str) -> None:
    try:
        await client.put_object(Bucket=bucket, Key=PROBE_KEY, Body=b"")
    except ClientError as error:
        if _status(error) < 500:
            raise
        # SeaweedFS without a key takes the setting and then answers every write with 500.
        raise Transient(
            f"bucket {bucket}: the store takes no encrypted object ({_code(error)}): {_KEY_REMEDY}, or free its disk"
        ) from error
    head = await client.head_object(Bucket=bucket, Key=PROBE_KEY)
    await client.delete_object(Bucket=bucket, Key=PROBE_KEY)
    if head.get("ServerSideEncryption") is None:
        raise Fatal(f"bucket {bucket}: the store took the encryption setting and does not encrypt: {_KEY_REMEDY}")


async def _encryption(client: S3Client, bucket: str) -> str | None:
    try:
        answer = await client.get_bucket_encryption(Bucket=bucket)
    except ClientError as error:
        if _status(error) == 404 or _code(error) in _NOT_OFFERED:
            return None
        raise
    for rule in answer["ServerSideEncryptionConfiguration"]["Rules"]:
        if default := rule.get("ApplyServerSideEncryptionByDefault"):
            return default["SSEAlgorithm"]
    return None


async def _lifecycle_rules(client: S3Client, bucket: str) -> list[LifecycleRuleOutputTypeDef]:
    try:
        answer = await client.get_bucket_lifecycle_configuration(Bucket=bucket)
    except ClientError as error:
        if _status(error) == 404 or _code(error) in _NOT_OFFERED:
            return []
        raise
    return answer.get("Rules", [])


def _code(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))


def _status(error: ClientError) -> int:
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def _mapped(error: ClientError | BotoCoreError | OSError, what: str) -> CdcError:
    if isinstance(error, NoCredentialsError):
        return Fatal(f"{what}: no credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY")
    if isinstance(error, (HTTPClientError, NoConnectionError)):  # connection refused, reset, timed out, TLS
        return Transient(f"{what}: {redact_text(str(error))}")
    if isinstance(error, ClientError):
        if _status(error) >= 500 or _status(error) == 429 or _code(error) in ("SlowDown", "RequestTimeout"):
            return Transient(f"{what}: {redact_text(str(error))}")
        if _status(error) in (401, 403):  # a HEAD has no body, so there is no code to go by
            return Fatal(
                f"{what}: the store refuses the credentials; check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and "
                f"the key's permissions ({redact_text(str(error))})"
            )
        if _code(error) == "InvalidBucketName":
            return Fatal(f"{what}: S3 does not allow this name; use 3 to 63 of a-z, 0-9, - and .")
    return map_store_error(error, what)
