"""Questions to the tables."""

from typing import Annotated, Final

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from cdc_shared.analytics.bounded_answer import BoundedFormat

MAX_SQL_CHARS: Final = 100_000
DEFAULT_ROWS: Final = 10_000


class Query(BaseModel):
    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {"sql": "SELECT status, count(*) AS orders FROM shop.shop.orders GROUP BY status"},
                {"sql": "SELECT * FROM shop.shop.orders WHERE _id = 4711", "as_of": "2026-03-01T00:00:00Z"},
            ]
        },
    )

    sql: str = Field(
        min_length=1,
        max_length=MAX_SQL_CHARS,
        description="one SELECT in DuckDB's SQL; tables are called pipeline.database.collection",
    )
    as_of: AwareDatetime | Annotated[int, Field(ge=0, le=2**53, strict=True)] | None = Field(
        default=None,
        description="every table as it was at this time in the source; or, for a question to one table, its version",
    )
    max_rows: int = Field(
        default=DEFAULT_ROWS,
        ge=1,
        strict=True,
        description="what is beyond is cut off, and `truncated` says so; the platform's own limit holds as well",
    )
    format: BoundedFormat = Field(default=BoundedFormat.JSON, description="of the answer")


class Column(BaseModel):
    name: str
    type: str = Field(description="Arrow's name of it")


class QueryAnswer(BaseModel):
    """The answer as JSON."""

    columns: list[Column]
    rows: list[list[object]] = Field(
        description="times in ISO 8601, decimals and whole numbers with all their digits, binary values in base64, "
        "NaN and infinities as null"
    )
    row_count: int
    truncated: bool = Field(description="there are more rows than were asked for")
    tables: dict[str, int] = Field(description="the tables that were read, and their versions")
