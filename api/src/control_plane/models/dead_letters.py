"""Dead letters as the API shows them."""

from datetime import UTC, datetime
from typing import Annotated, Any, Self

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints, model_validator

from cdc_shared.dead_letters.dead_letters import Replayed
from cdc_shared.dead_letters.inspection import ShownLetter
from cdc_shared.dead_letters.letter import Letter
from cdc_shared.dead_letters.rejection import ReasonCode

MAX_LETTERS = 200
LETTER_PATTERN = r"^[A-Za-z0-9._-]{1,249}:\d{1,10}:\d{1,19}$"

LetterName = Annotated[str, StringConstraints(pattern=LETTER_PATTERN)]
"""`topic:partition:offset` of the record that was rejected."""


class LetterView(BaseModel):
    """What is known of a letter without looking into it."""

    letter: str
    """Its name: `topic:partition:offset` of the record that was rejected."""
    collection: str | None
    code: str
    message: str
    rule: str | None
    attempt: int
    first_seen: datetime
    written: datetime
    size_bytes: int

    @classmethod
    def of(cls, letter: Letter, written_ms: int) -> Self:
        return cls(
            letter=str(letter.place),
            collection=letter.collection,
            code=letter.code,
            message=letter.message,
            rule=letter.rule,
            attempt=letter.attempt,
            first_seen=_time(letter.first_seen_ms),
            written=_time(written_ms),
            size_bytes=letter.size_bytes,
        )


class LetterContent(LetterView):
    """A letter and what is in it."""

    revealed: bool
    """Whether values are shown; otherwise each is replaced by the name of its type."""
    key: Any
    value: Any

    @classmethod
    def of_shown(cls, shown: ShownLetter) -> Self:
        head = LetterView.of(shown.letter, shown.written_ms)
        return cls(**head.model_dump(), revealed=shown.revealed, key=shown.key, value=shown.value)


class LettersMeant(BaseModel):
    """Which letters of the pipeline are meant: some by name, or all that fit the other parts, or really all."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"code": "validation_failed", "rule": "total-is-positive"}]},
    )

    letters: tuple[LetterName, ...] = Field(default=(), max_length=MAX_LETTERS)
    collection: str | None = Field(default=None, min_length=1, max_length=255)
    code: ReasonCode | None = None
    rule: str | None = Field(default=None, min_length=1, max_length=64)
    since: AwareDatetime | None = None
    """Written at or after this time."""
    until: AwareDatetime | None = None
    """Written before this time."""
    all: bool = False
    """Every letter of the pipeline."""

    @model_validator(mode="after")
    def _says_which(self) -> Self:
        parts = (self.collection, self.code, self.rule, self.since, self.until)
        ways = [bool(self.letters), any(part is not None for part in parts), self.all]
        if sum(ways) != 1:
            raise ValueError("say which: `letters`, or what tells them apart (collection, code, …), or `all`: true")
        return self


class Refusal(BaseModel):
    letter: str
    reason: str


class ReplayResult(BaseModel):
    """What became of letters that were tried again."""

    replayed: int
    """So many are on their way to the writer, and no longer dead letters."""
    refused: int
    """So many cannot be tried again, and stand as they did."""
    reasons: dict[str, int]
    examples: list[Refusal]

    @classmethod
    def of(cls, result: Replayed) -> Self:
        return cls(
            replayed=result.replayed,
            refused=result.refused.total(),
            reasons=dict(result.refused),
            examples=[Refusal(letter=str(place), reason=reason) for place, reason in result.examples],
        )


class DiscardResult(BaseModel):
    """How many letters were given up."""

    discarded: int


def _time(at_ms: int) -> datetime:
    return datetime.fromtimestamp(at_ms / 1000, UTC)
