"""SQL on the tables, through the API."""

from datetime import datetime
from typing import Final

import pyarrow as pa

from cdc_shared.analytics.bounded_answer import BoundedFormat
from control_plane.client.connection import Connection
from control_plane.models.query import DEFAULT_ROWS, Query

PATH: Final = "/api/v1/query"


class Tables:
    """The rows of the tables that one may read, called `pipeline.database.collection`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def query(self, sql: str, as_of: datetime | int | None = None, max_rows: int = DEFAULT_ROWS) -> pa.Table:
        """The answer, all values as they are; its metadata `cdc.tables` tells the versions that were read.

        `as_of`: a time in the source, or for a question to one table its version. What is beyond `max_rows`, or the
        platform's own limit, is cut off: the metadata `cdc.truncated` is `true` then.
        """
        query = Query(sql=sql, as_of=as_of, max_rows=max_rows, format=BoundedFormat.ARROW)
        response = self._connection.request("POST", PATH, json=query.model_dump(mode="json"))
        table = pa.ipc.open_stream(response.content).read_all()
        told = {b"cdc.truncated": response.headers["X-Truncated"].encode()}
        return table.replace_schema_metadata({**(table.schema.metadata or {}), **told})
