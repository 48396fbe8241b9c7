"""A pipeline from MongoDB through Debezium and Kafka Connect, as users have them."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

from bson import CodecOptions, DatetimeConversion
from bson.binary import UuidRepresentation
from pymongo import MongoClient
from pymongo.database import Database
from stack_endpoints import Stack
from trial_pipeline import EQUAL_TIMEOUT_S, TrialPipeline

from cdc_shared.connect.connect_client import ConnectClient
from cdc_shared.connect.connector_config import load_template, render_connector_config
from cdc_shared.connect.connector_secrets import ConnectorSecrets
from cdc_shared.documents import canonical_document, key_text
from cdc_shared.kafka.topics import ensure_connector_topics
from cdc_shared.security.secret_provider import Secret
from cdc_shared.snapshots.notification_reader import NotificationReader
from cdc_shared.snapshots.notifications import Notification

CONNECTOR_TEMPLATE = Path(__file__).parents[2] / "config" / "kafka-connect" / "debezium-mongodb.json"
CONNECTOR_TIMEOUT_S = 60.0
# Values as BSON has them: no date that Python's datetime cannot hold is refused, no UUID is guessed.
EXACT = CodecOptions[dict[str, Any]](
    datetime_conversion=DatetimeConversion.DATETIME_MS, uuid_representation=UuidRepresentation.UNSPECIFIED
)


class MongoPipeline(TrialPipeline):
    """`db` is the pipeline's database: what is written there must come to the tables."""

    def __init__(
        self,
        stack: Stack,
        name: str,
        root: str,
        directory: Path,
        connector: Mapping[str, str] | None = None,
        writer: Mapping[str, str] | None = None,
        **options: Any,
    ) -> None:
        """`connector`: settings of the connector that differ from the template's; `writer`: its first environment."""
        super().__init__(stack, name, root, directory, **options)
        self._connector = dict(connector or {})
        self._environment = dict(writer or {})
        self._secrets = ConnectorSecrets(stack.connect_secrets_dir)
        self._client = MongoClient[dict[str, Any]](stack.mongodb_uri)
        self.db: Database[dict[str, Any]] = self._client.get_database(self.database, codec_options=EXACT)

    def start(self) -> None:
        """Publish the spec, start the writer and the connector, and wait until all run."""
        ensure_connector_topics(self.admin, self.name)
        self.publish()
        connection = self._secrets.put(self.name, Secret(self.stack.mongodb_uri))
        config = render_connector_config(load_template(CONNECTOR_TEMPLATE), self.spec, connection, self.stack.kafka)
        with ConnectClient(self.stack.connect_url) as connect:
            connect.put_config(self.name, config | self._connector)
            self.start_writer(self._environment)
            connect.wait_running(self.name, CONNECTOR_TIMEOUT_S)

    def notifications(self) -> list[Notification]:
        """What the connector has told of its snapshots so far."""
        told: list[Notification] = []
        with closing(NotificationReader(self.stack.kafka, self.name)) as reader:
            while not reader.caught_up:
                told += reader.read(0.5)
        return told

    def documents(self, collection: str) -> dict[str, bytes]:
        """What the collection holds: key text → the canonical form of the document."""
        return {key_text(each["_id"]): canonical_document(each) for each in self.db[collection].find()}

    def await_equal(self, collection: str, timeout_s: float = EQUAL_TIMEOUT_S) -> None:
        """Wait until the table equals the collection."""
        self.await_rows(collection, lambda: self.documents(collection), timeout_s)

    def close(self) -> None:
        """Remove the connector, then the rest."""
        with ExitStack() as cleanup:
            cleanup.callback(super().close)
            cleanup.callback(self._client.close)
            cleanup.callback(self._delete_connector)

    def _delete_connector(self) -> None:
        with ConnectClient(self.stack.connect_url) as connect:
            connect.delete(self.name)
        self._secrets.remove(self.name)
