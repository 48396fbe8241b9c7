"""Everything a part needs to know to describe itself: read once, frozen, passed down."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from string import Template

from local_stack.credentials import Credentials
from local_stack.layout import Layout
from local_stack.ports import HOST
from local_stack.settings import StackSettings, embedded_mongodb_uri

REGION = "us-east-1"


@dataclass(frozen=True)
class Stack:
    layout: Layout
    settings: StackSettings
    ports: Mapping[str, int]
    credentials: Credentials
    java: Path
    jars: Path
    """Directory with `libs` (broker and Connect) and `plugins` (Debezium)."""

    @property
    def mongodb_uri(self) -> str:
        return self.settings.mongodb_uri or embedded_mongodb_uri(self.ports["MONGODB_PORT"])

    @property
    def kafka(self) -> str:
        return self.address("KAFKA_PORT")

    @property
    def connect_url(self) -> str:
        return f"http://{self.address('CONNECT_PORT')}"

    @property
    def s3_url(self) -> str:
        return f"http://{self.address('S3_PORT')}"

    @property
    def s3_metrics_url(self) -> str:
        return f"http://{self.address('SEAWEEDFS_METRICS_PORT')}/metrics"

    @property
    def delta_root(self) -> str:
        return f"s3://{self.settings.bucket}/delta"

    @property
    def writer_url(self) -> str:
        return f"http://{self.address('WRITER_HTTP_PORT')}"

    @property
    def reconciliation_url(self) -> str:
        return f"http://{self.address('RECONCILIATION_HTTP_PORT')}"

    @property
    def api_url(self) -> str:
        return f"http://{self.address('API_PORT')}"

    @property
    def prometheus_url(self) -> str:
        return f"http://{self.address('PROMETHEUS_PORT')}"

    def address(self, variable: str) -> str:
        return f"{HOST}:{self.ports[variable]}"

    def render(self, template: str, **values: object) -> str:
        """The text of `config/local/<template>` with ports and `values` filled in."""
        source = self.layout.templates / template
        names: dict[str, object] = {**self.ports, "HOST": HOST, "KAFKA": self.kafka, **values}
        return Template(source.read_text(encoding="utf-8")).substitute(names)
