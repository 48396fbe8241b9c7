"""What is left of a pipeline once nobody runs it, on the real systems."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import closing
from typing import Final

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient

from cdc_shared.connect.connector_secrets import ConnectorSecrets
from cdc_shared.dead_letters.lake_records import lake_directory
from cdc_shared.errors import Transient
from cdc_shared.kafka.consumer_groups import REQUEST_TIMEOUT_S, members, writer_group
from cdc_shared.kafka.errors import map_kafka_error
from cdc_shared.kafka.rules_topic import forget_rules
from cdc_shared.kafka.status_topic import forget_reports
from cdc_shared.models.common import SENTINEL_COLLECTION, PipelineSpec
from cdc_shared.settings import ObjectStoreSettings, SecretsSettings
from cdc_shared.source.mongodb_source import MongodbSource
from cdc_shared.storage.report_files import reports_directory
from control_plane.controller.operations.removal import (
    all_topics,
    change_topics_of,
    connector_topics_of,
    remove_table,
    remove_topics,
    tables_of,
)

_NO_GROUP: Final = frozenset({KafkaError.GROUP_ID_NOT_FOUND, KafkaError.COORDINATOR_NOT_AVAILABLE})


class PipelineRemains:
    """See `delete.Remains`."""

    def __init__(
        self,
        bootstrap_servers: str,
        stores: ObjectStoreSettings,
        secrets: SecretsSettings,
        connector_secrets: ConnectorSecrets,
        environ: Mapping[str, str] = os.environ,
    ) -> None:
        """`environ` is where `env:` references to sources are looked up."""
        self._bootstrap_servers = bootstrap_servers
        self._stores = stores
        self._secrets = secrets
        self._connector_secrets = connector_secrets
        self._environ = environ

    def remove_secrets(self, name: str) -> None:
        self._connector_secrets.remove(name)

    def writers(self, name: str) -> list[str]:
        return members(self._admin(), writer_group(name))

    def tables(self, spec: PipelineSpec) -> list[str]:
        return tables_of(spec, self._stores)

    def remove_table(self, url: str) -> bool:
        return remove_table(url, self._stores)

    def remove_dead_letters(self, spec: PipelineSpec) -> bool:
        return remove_table(lake_directory(self._stores.root_for(spec.sink.root), spec.name), self._stores)

    def remove_reconciliation_reports(self, spec: PipelineSpec) -> bool:
        return remove_table(reports_directory(self._stores.root_for(spec.sink.root), spec.name), self._stores)

    def remove_topics(self, spec: PipelineSpec) -> None:
        admin = self._admin()
        topics = all_topics(admin)
        remove_topics(admin, [*change_topics_of(spec, topics), *connector_topics_of(spec.name, topics)])

    def remove_group(self, name: str) -> None:
        group, admin = writer_group(name), self._admin()  # a client that is let go of takes its answers with it
        future = admin.delete_consumer_groups([group], request_timeout=REQUEST_TIMEOUT_S)[group]
        try:
            future.result(REQUEST_TIMEOUT_S + 5)
        except KafkaException as error:
            if error.args[0].code() not in _NO_GROUP:
                raise map_kafka_error(error, f"delete group {group}") from None
        except TimeoutError:
            raise Transient(f"delete group {group}: no answer within {REQUEST_TIMEOUT_S:.0f} s") from None

    def remove_heartbeat(self, spec: PipelineSpec) -> None:
        with closing(MongodbSource(spec.source, self._secrets, self._environ)) as source:
            collection = f"{spec.source.database}.{SENTINEL_COLLECTION}"
            with source.asking(f"remove the watermark's document from {collection}") as session:
                found = source.database(spec.source.database)[SENTINEL_COLLECTION]
                found.delete_one({"_id": spec.name}, session=session)

    def forget_reports(self, name: str) -> None:
        forget_reports(self._bootstrap_servers, name)

    def forget_rules(self, name: str) -> None:
        forget_rules(self._bootstrap_servers, name)

    def _admin(self) -> AdminClient:
        return AdminClient({"bootstrap.servers": self._bootstrap_servers, "log_level": 5})
