"""The actions of a Delta log entry, as typed records (Delta protocol: "Actions").

Field names are the protocol's own. A log entry is JSON lines, one action each; only the actions and fields that this
platform reads or writes are named here. A line with none of them (say, `domainMetadata`) decodes to an empty `Action`
and is left alone.
"""

from collections.abc import Iterable
from typing import Any, Final

import msgspec


class DeletionVectorDescriptor(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """Where the deletion vector of a data file lies (protocol: "Deletion Vector Descriptor Schema")."""

    storage_type: str
    path_or_inline_dv: str
    size_in_bytes: int
    cardinality: int
    offset: int | None = None

    @property
    def unique_id(self) -> str:
        """Tells two vectors of one file apart; with the path it identifies a logical file."""
        return f"{self.storage_type}{self.path_or_inline_dv}@{self.offset}"


class AddFile(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """A data file that is part of the table. `stats` is JSON text; sizes are bytes, times are ms since the epoch."""

    path: str
    partition_values: dict[str, str | None]
    size: int
    modification_time: int
    data_change: bool
    stats: str | None = None
    tags: dict[str, str | None] | None = None
    deletion_vector: DeletionVectorDescriptor | None = None


class RemoveFile(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """A data file (with the vector it had) that is no longer part of the table."""

    path: str
    data_change: bool
    deletion_timestamp: int | None = None
    extended_file_metadata: bool | None = None
    partition_values: dict[str, str | None] | None = None
    size: int | None = None
    deletion_vector: DeletionVectorDescriptor | None = None


class Transaction(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """An application's own version (protocol: "Transaction Identifiers"): here a partition's next Kafka offset."""

    app_id: str
    version: int
    last_updated: int | None = None


class TableFormat(msgspec.Struct, frozen=True):
    """The encoding of the data files: always Parquet."""

    provider: str
    options: dict[str, str]


class Metadata(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """The table's identity, schema (`schema_string`, JSON) and properties."""

    id: str
    format: TableFormat
    schema_string: str
    partition_columns: list[str]
    configuration: dict[str, str]
    created_time: int | None = None
    name: str | None = None
    description: str | None = None


class Protocol(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """What a reader or writer must understand to touch the table."""

    min_reader_version: int
    min_writer_version: int
    reader_features: list[str] | None = None
    writer_features: list[str] | None = None


class Action(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """One line of a log entry: exactly one of the fields is set."""

    commit_info: dict[str, Any] | None = None
    protocol: Protocol | None = None
    meta_data: Metadata | None = None
    txn: Transaction | None = None
    remove: RemoveFile | None = None
    add: AddFile | None = None


_DECODER: Final = msgspec.json.Decoder(Action)
_ENCODER: Final = msgspec.json.Encoder()


def encode_actions(actions: Iterable[Action]) -> bytes:
    """Return the actions as the body of a log entry: JSON lines, each ended by a newline."""
    return _ENCODER.encode_lines(list(actions))


def decode_actions(body: bytes) -> list[Action]:
    """Return the actions of a log entry's body. Raises `msgspec.DecodeError` when it is not JSON lines."""
    return _DECODER.decode_lines(body)
