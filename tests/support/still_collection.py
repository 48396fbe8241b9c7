"""A collection and its table that stand still, with whatever is wrong with them, as `settle` meets them."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import bson

from cdc_shared.dead_letters.letter import Letter, Place
from cdc_shared.delta.key_hash import hash_keys
from cdc_shared.documents import DocumentSchema, decode, document_key, document_text, parse_document
from cdc_shared.errors import Fatal
from cdc_shared.models.data_quality import QualitySpec
from cdc_shared.models.reconciliation import DifferenceKind
from cdc_shared.source.document_reader import DocumentRead, DocumentsRead
from reconciliation.reconciler.data_comparator import Candidate
from reconciliation.reconciler.discrepancy_detector import Settled, SettleLimits, settle
from reconciliation.reconciler.generations import Evidence, ScanWindow
from reconciliation.reconciler.result import TopicPositions
from reconciliation.reconciler.rules_versions import RulesVersions
from reconciliation.sources.changed_keys import PositionsGone
from reconciliation.sources.deltalake_reader import KeyHash, RowLocation, StoredRow

NOW_MS: Final = 1_700_000_000_000
SECRET: Final = b"sixteen bytes or more"
TOPIC: Final = "p.shop.orders"
ONE_MINUTE: Final = SettleLimits(timeout_s=60)
Document = Mapping[str, Any]


def rules(version: int, **parts: Any) -> QualitySpec:
    """The `quality` part of a spec."""
    return QualitySpec.model_validate({"version": version, **parts})


def letter(offset: int, code: str = "validation_failed", partition: int = 0) -> Letter:
    """A letter of the collection's."""
    place = Place(TOPIC, partition, offset)
    return Letter("p", place, "orders", code, "rule total: not a number", "total", 1, NOW_MS, 10, "k")


class Control:
    """Nobody wants anything of the run."""

    def check(self) -> None: ...


@dataclass
class StillCollection:
    """Tables are keyed as documents are: by key text.

    `offset`: of all rows. `watermark_ms` and `under_way` are the table's and of the window of changes. `failures`: so
    many questions for documents fail. `answered_ms`: the source's time of all reads.
    """

    quality: QualitySpec = field(default_factory=QualitySpec)
    published: dict[int, QualitySpec] = field(default_factory=dict)
    documents: dict[str, bytes] = field(default_factory=dict)
    rows: dict[str, list[StoredRow]] = field(default_factory=dict)
    schema: DocumentSchema = field(default_factory=DocumentSchema)
    letters: dict[str, list[Letter]] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    under_way: set[str] = field(default_factory=set)
    watermark_ms: int | None = NOW_MS + 1000
    whole: bool = True
    gone: bool = False
    secrets: dict[str, bytes] = field(default_factory=lambda: {"env:KEY": SECRET})
    offset: int = 10
    partition_base: int = 0
    masked_by: int = 0
    version: int = 5
    errors: list[Exception] = field(default_factory=list)
    now: float = 0.0
    waited: list[str | None] = field(default_factory=list)
    decided: int = 0

    def __post_init__(self) -> None:
        self.rules = RulesVersions("p", "orders", self.quality, lambda: self.published, self._secret)

    def _secret(self, reference: str) -> bytes:
        if reference not in self.secrets:
            raise Fatal(f"{reference} is not set")
        return self.secrets[reference]

    # -- what there is -------------------------------------------------------------------------------------------------

    def document(self, document: Document) -> str:
        """Put a document into the source; return its key text."""
        raw = bson.encode(document)
        key = document_key(raw)
        self.documents[key] = raw
        return key

    def row(self, document: Document, version: int = 0, **columns: Any) -> str:
        """Put the row of a document into the table, as the rules of that version make it; `columns` are then changed.

        The table gets columns for whatever the document has. Returns the key text.
        """
        raw = bson.encode(document)
        key = document_key(raw)
        made_by = self.rules.of(version).rules
        texts = [document_text(raw)]
        decoded = decode(texts, made_by.source_schema(self.schema))
        table, rescued = decoded.table, decoded.rescued
        schema = decoded.schema
        if made_by.transforms:
            changed = made_by.transform(decoded, texts).decoded
            table, rescued, schema = changed.table, changed.rescued, changed.schema
        if len(schema.fields) >= len(self.schema.fields):
            self.schema = schema
        values = {
            **table.to_pylist()[0], "_cdc_key": made_by.key_text(key), "_cdc_rescued": rescued[0].as_py(),
            "_cdc_rules_version": version or None, "_cdc_partition": self.partition_base, "_cdc_offset": self.offset,
            **columns,
        }  # fmt: skip
        rows = self.rows.setdefault(values["_cdc_key"] or "", [])
        rows.append(StoredRow(RowLocation("f", len(rows)), values))
        return key

    def both(self, document: Document) -> str:
        """Put a document into both."""
        self.row(document, self.quality.version)
        return self.document(document)

    # -- settling ------------------------------------------------------------------------------------------------------

    def candidate(
        self, key: str, kind: DifferenceKind = DifferenceKind.DIFFERENT, *, seen: bool | None = None
    ) -> Candidate:
        """The candidate of a key text. `seen`: whether the source scan saw the document; by default, as it is."""
        shown = self.rules.newest.rules.key_text(key)
        rows = self.rows.get(shown, [])
        ((high, low),) = hash_keys([shown]).tolist()
        source_key = key if (key in self.documents if seen is None else seen) else None
        return Candidate(kind, (high, low), source_key, None, tuple(row.location for row in rows), len(rows))

    def settle(
        self, *keys: str | Candidate, scanned: bool = True, limits: SettleLimits = ONE_MINUTE, **more: Any
    ) -> Settled:
        """Settle the candidates of these keys."""
        candidates = [self.candidate(each) if isinstance(each, str) else each for each in keys]
        evidence = Evidence(self, self._read, _Table(self), self.rules, self._letters)
        scan = ScanWindow(TopicPositions("id", {0: 0}), NOW_MS) if scanned else None
        return settle(
            candidates, evidence, limits, Control(), scan=scan, waiting=self.waited.append, advance=self._advance,
            clock=lambda: self.now, sleep=self._sleep, **more,
        )  # fmt: skip

    def _advance(self, keys: int) -> None:
        self.decided += keys

    def _sleep(self, seconds: float) -> None:
        self.now += seconds

    def _read(self, keys: Collection[str]) -> DocumentsRead:
        if self.errors:
            raise self.errors.pop(0)
        answer = DocumentsRead()
        for key in keys:
            raw = self.documents.get(key)
            if key in self.refused:
                answer.refused[key] = self.refused[key]
            else:
                answer.read[key] = DocumentRead(None if raw is None else document_text(raw), NOW_MS, raw)
        return answer

    def _letters(self, keys: Collection[str]) -> Mapping[str, Sequence[Letter]]:
        return {key: self.letters[key] for key in keys if key in self.letters}

    # -- the table and the topic ---------------------------------------------------------------------------------------

    @property
    def positions(self) -> dict[int, int]:
        return {0: 100}

    def ends(self) -> TopicPositions:
        return TopicPositions("id", {0: 100})

    def keys_between(self, start: TopicPositions, end: Mapping[int, int]) -> Collection[str]:
        if self.gone:
            raise PositionsGone("the topic was made again")
        self.now += 1
        return set(self.under_way)


@dataclass
class _Table:
    collection: StillCollection

    def newest(self, _: TopicPositions) -> StillCollection:
        return self.collection

    def is_whole(self, _: Any) -> bool:
        return self.collection.whole

    def rows(self, _: Any, wanted: Mapping[KeyHash, Any]) -> Iterator[tuple[KeyHash, StoredRow]]:
        for key, rows in self.collection.rows.items():
            ((high, low),) = [(0, 0)] if not key else hash_keys([key]).tolist()
            if (high, low) in wanted:
                for row in rows:
                    yield (high, low), row


def told(text: str | None) -> Any:
    """A shown document as values."""
    return None if text is None else parse_document(text)
