"""Whether a row is what its document says, and if not: what is wrong, why, and what to do about it.

What may stand without being wrong is told by the rules: a document that they reject leaves an older valid row or none,
one that does not match a filter has none. A row is compared under the version of the rules that made it: a newer one
has not changed it until the document is read again (docs/architecture/data-quality.md).
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, Final, NamedTuple

from bson.errors import BSONError

from cdc_shared.dead_letters.letter import Letter
from cdc_shared.dead_letters.rejection import ReasonCode, Rejection
from cdc_shared.documents import (
    DocumentSchema,
    canonical_document,
    canonical_row,
    digest,
    document_of_row,
    parse_document,
)
from cdc_shared.models.reconciliation import DifferenceKind
from cdc_shared.source.document_reader import DocumentRead
from reconciliation.reconciler.difference import Difference, FieldDifference, How
from reconciliation.reconciler.field_differences import field_differences
from reconciliation.reconciler.generations import Look, TableState, key_of
from reconciliation.reconciler.independent_path import canonical_of_raw
from reconciliation.reconciler.rules_versions import Incomparable, PublishedRules, RulesVersions
from reconciliation.reconciler.shown_documents import ShownDocuments
from reconciliation.sources.deltalake_reader import StoredRow

INDEPENDENT_MASK: Final = 15
"""Of the keys that are looked into, those with `hash_lo & mask == 0` are read through the independent decoder too."""
NAMED_FIELDS: Final = 3
_NO_DOCUMENT: Final = (BSONError, ValueError, ArithmeticError, TypeError, KeyError)
"""What columns raise that hold what no document can, as only another program writes it: text that is no ObjectId."""
_REPAIR: Final = "Repair reads the document again and brings the row to it."


class RowPlace(NamedTuple):
    """Where in the change topic a row's event lay; `partition` is Kafka's, negative for a topic that is gone."""

    partition: int
    offset: int


class Explained(NamedTuple):
    """A confirmed difference, and where its newest row came from; None without a row that says so."""

    difference: Difference
    place: RowPlace | None


class Explainer:
    """Judges what generations saw of one collection."""

    def __init__(self, rules: RulesVersions, *, values: bool = True) -> None:
        """Without `values`, a document and one row agree whatever is in them."""
        self._rules = rules
        self._values = values
        self._shown = ShownDocuments(rules.newest)

    # -- is it right? --------------------------------------------------------------------------------------------------

    def agrees(self, look: Look, table: TableState) -> bool:
        """Tell whether there is one row and it holds the document, or there is neither.

        Raises:
            Incomparable: what made the row is not to be had.
        """
        if look.document is None:
            return not look.rows
        if len(look.rows) != 1:
            return False
        if not self._values:
            return True
        (row,) = look.rows
        made_by = self._made_by(row, table)
        canonical = _canonical(row, table.schema)
        if canonical is None or canonical != canonical_document(_transformed(look.document, made_by)):
            return False
        if self._should_be_gone(look.document, row, made_by):
            return False
        return not _needs_witness(look) or _decoders_agree(look.document, canonical, made_by)

    def _should_be_gone(self, document: DocumentRead, row: StoredRow, made_by: PublishedRules) -> bool:
        """Tell whether the document has no row, neither under the rules that made this one nor under those in force.

        Such a row may hold it all the same: where the rules drop the field that a filter looks at.
        """
        judged = [
            each.rejection(document.text or "", len(document.raw or b"")) for each in (made_by, self._rules.newest)
        ]
        return all(
            each is not None and (each.code is ReasonCode.FILTERED or not self._rules.keeps_rejected(row.rules_version))
            for each in judged
        )

    # -- why not? ------------------------------------------------------------------------------------------------------

    def explain(self, look: Look, table: TableState) -> Explained:
        """Say what is wrong with a key that does not agree and has not changed.

        Raises:
            Incomparable: what made the row is not to be had.
        """
        place = _newest_place(look.rows, table.partition_base)
        if look.document is None:
            return Explained(self._extra(look, table, _gone(look)), place)
        rejection = self._rules.newest.rejection(look.document.text or "", len(look.document.raw or b""))
        if not look.rows:
            return Explained(self._without_row(look, look.document, rejection), None)
        if len(look.rows) > 1:
            return Explained(self._duplicated(look, table), place)
        if rejection is not None:
            return Explained(self._rejected(look, table, rejection), place)
        return Explained(self._different(look, look.document, table), place)

    def undecided(self, look: Look, why: str) -> Difference:
        """A key that could not be settled."""
        return self._difference(look, DifferenceKind.LAGGING, why)

    def _without_row(self, look: Look, document: DocumentRead, rejection: Rejection | None) -> Difference:
        if rejection is None:
            kind, why = DifferenceKind.MISSING, f"MongoDB has the document, the table has no row of it. {_REPAIR}"
            why += self._rejected_before(document)
        elif rejection.code is ReasonCode.FILTERED:
            kind = DifferenceKind.FILTERED
            why = f"The document does not match a filter of the pipeline, so it has no row: {rejection.message}."
        else:
            kind = DifferenceKind.REJECTED
            why = (
                f"The document is rejected, and has no row: {rejection.message}. Correct the document, or the rule and "
                "read the document again."
            )
        transformed = _transformed(document, self._rules.newest)
        (shown,), hidden = self._shown.texts(self._rules.newest, (), transformed)
        return self._difference(look, kind, why, hidden, document=shown)

    def _rejected(self, look: Look, table: TableState, rejection: Rejection) -> Difference:
        """The document is rejected by the rules in force, but there is a row which does not hold it."""
        if rejection.code is ReasonCode.FILTERED:
            why = f"The document does not match a filter of the pipeline, but has a row: {rejection.message}."
            return self._extra(look, table, f"{why} Repair deletes it.")
        if not self._rules.keeps_rejected(look.rows[0].rules_version):
            why = f"The document is rejected, and a rejected document has no row, but it has one: {rejection.message}."
            return self._extra(look, table, f"{why} Repair deletes it.")
        why = (
            f"The document as it is now is rejected, and its row is that of an older valid one: {rejection.message}. "
            "Correct the document, or the rule and read the document again."
        )
        return self._beside(look, DifferenceKind.REJECTED, table, why)

    def _different(self, look: Look, document: DocumentRead, table: TableState) -> Difference:
        (row,) = look.rows
        made_by = self._made_by(row, table)
        canonical = _canonical(row, table.schema)
        is_decoders = look.subject.candidate.kind is DifferenceKind.DECODER
        if is_decoders or canonical == canonical_document(_transformed(document, made_by)):
            why = (
                "The row is what this platform's decoder makes of the document, but another decoder reads the document "
                "otherwise. Report it as a fault of the platform; a repair would make the same row again."
            )
            return self._beside(look, DifferenceKind.DECODER, table, why)
        return self._beside(look, DifferenceKind.DIFFERENT, table, None, self._rejected_before(document))

    def _duplicated(self, look: Look, table: TableState) -> Difference:
        rows = max(len(look.rows), look.subject.candidate.rows if _all_live(look) else 0)
        why = f"The table has {rows:,} rows of this document: another program has written to it. Repair leaves one."
        try:
            return self._beside(look, DifferenceKind.DUPLICATED, table, why, rows=rows)
        except Incomparable:  # there are too many whatever is in them
            return self._difference(look, DifferenceKind.DUPLICATED, why, rows=rows)

    def _extra(self, look: Look, table: TableState, why: str) -> Difference:
        row = look.rows[0]
        rows = max(len(look.rows), look.subject.candidate.rows if _all_live(look) else 0)
        shown: str | None = None
        hidden = ""
        with suppress(Incomparable):  # one too many whatever is in it; but who knows what should be masked
            (shown,), hidden = self._shown.texts(self._made_by(row, table), (), _document_of(row, table.schema))
        return self._difference(look, DifferenceKind.EXTRA, why, hidden, row=shown, rows=rows)

    def _beside(
        self,
        look: Look,
        kind: DifferenceKind,
        table: TableState,
        why: str | None,
        more: str = "",
        *,
        rows: int = 1,
    ) -> Difference:
        """Of a key that has both: the row that differs, if one does, beside the document."""
        text = look.document.text if look.document is not None else None
        for row in look.rows:
            made_by = self._made_by(row, table)
            expected = made_by.rules.transform_document(parse_document(text or "{}"))
            stored = _document_of(row, table.schema)
            fields = (FieldDifference("", How.VALUE),) if stored is None else field_differences(expected, stored)
            if fields:
                break
        why = why or f"{_told(fields)}. {_REPAIR}"
        (document, shown), hidden = self._shown.texts(made_by, fields, expected, stored)
        return self._difference(look, kind, why + more, hidden, fields, document, shown, rows)

    def _made_by(self, row: StoredRow, table: TableState) -> PublishedRules:
        """The rules that the row is compared under. Raises `Incomparable`.

        A row that says it is older than the masks that all rows have was not left so by the writer: as it says it has
        none of them, it would be right unmasked.
        """
        version = row.rules_version or 0
        return self._rules.newest if version < table.masked_by else self._rules.of(version)

    def _rejected_before(self, document: DocumentRead) -> str:
        """A hint: an older version of the rules would not have let the document pass, so it may be no damage."""
        for version in self._rules.before(self._rules.newest.quality.version):
            rejection = version.rejection(document.text or "", len(document.raw or b""))
            if rejection is not None:
                return (
                    f" Version {version.quality.version} of the rules did not let it pass ({rejection.message}), the "
                    "one in force does: it may have come while that was in force."
                )
        return ""

    def _difference(
        self,
        look: Look,
        kind: DifferenceKind,
        why: str,
        hidden: str = "",
        fields: tuple[FieldDifference, ...] = (),
        document: str | None = None,
        row: str | None = None,
        rows: int | None = None,
    ) -> Difference:
        return Difference(
            key=key_of(look.subject, self._rules.newest.rules),
            source_key=look.subject.source_key,
            kind=kind,
            fields=fields,
            document=document,
            row=row,
            rules_version=(look.rows[0].rules_version or 0) if look.rows else None,
            rows=len(look.rows) if rows is None else rows,
            explanation=f"{why} {hidden}".strip(),
        )


def by_dead_letters(explained: Sequence[Explained], letters: Mapping[str, Sequence[Letter]]) -> list[Difference]:
    """Explain by dead letters: what is wrong because a change of it could not be applied waits there to be replayed.

    A letter that is older than the row's event does not explain the row. `letters` by key as in the table.
    """
    return [_with_letter(each, letters.get(each.difference.key, ())) for each in explained]


_BY_LETTER: Final = (DifferenceKind.MISSING, DifferenceKind.EXTRA, DifferenceKind.DIFFERENT)


def _with_letter(explained: Explained, letters: Sequence[Letter]) -> Difference:
    difference, place = explained
    later = [each for each in letters if _is_later(each, place)]
    if not later or difference.kind not in (*_BY_LETTER, DifferenceKind.REJECTED):
        return difference
    newest = max(later, key=lambda each: each.place.offset)
    told = f"A change of the document is dead letter {newest.place} ({newest.code}: {newest.message})."
    if difference.kind is DifferenceKind.REJECTED:
        return replace(difference, explanation=f"{difference.explanation} {told}")
    explanation = f"{told} Correct what it names, then replay it. {difference.explanation}"
    return replace(difference, kind=DifferenceKind.DEAD_LETTERED, explanation=explanation)


def _is_later(letter: Letter, place: RowPlace | None) -> bool:
    if place is None or place.partition != letter.place.partition:
        return True
    # The same offset: a rejected snapshot read confirms the row that stands, and the row says where that lay.
    return letter.place.offset >= place.offset


def _needs_witness(look: Look) -> bool:
    candidate = look.subject.candidate
    return candidate.kind is DifferenceKind.DECODER or candidate.hash[1] & INDEPENDENT_MASK == 0


def _decoders_agree(document: DocumentRead, canonical: bytes, made_by: PublishedRules) -> bool:
    witness = None if document.raw is None else canonical_of_raw(document.raw, made_by.rules)
    return witness is None or witness == digest(canonical)


def _transformed(document: DocumentRead, made_by: PublishedRules) -> Any:
    return made_by.rules.transform_document(parse_document(document.text or "{}"))


def _canonical(row: StoredRow, schema: DocumentSchema) -> bytes | None:
    """The canonical form of the document that a row holds; None when it holds none."""
    try:
        return canonical_row(row.values, schema, row.rescued)
    except _NO_DOCUMENT:
        return None


def _document_of(row: StoredRow, schema: DocumentSchema) -> Any:
    try:
        return document_of_row(row.values, schema, row.rescued)
    except _NO_DOCUMENT:
        return None


def _newest_place(rows: Sequence[StoredRow], base: int) -> RowPlace | None:
    places = [(row.values.get("_cdc_partition"), row.values.get("_cdc_offset")) for row in rows]
    known = [RowPlace(p - base, offset) for p, offset in places if p is not None and offset is not None]
    return max(known, key=lambda each: each.offset, default=None)


def _all_live(look: Look) -> bool:
    """Whether the rows that were named are all there, so that those beyond are too."""
    return len(look.rows) >= len(look.subject.candidate.locations) < look.subject.candidate.rows


def _gone(look: Look) -> str:
    if look.subject.candidate.keyless:
        return (
            "The row has no _cdc_key: another program has written to the table, and nothing of the pipeline will ever "
            "touch it. Delete it with that program, or resync the collection."
        )
    if look.subject.source_key is None:
        return (
            "The table has a row, MongoDB had no document of it when it was read. As the _id is masked, nobody can ask "
            "for it to be read again: resync the collection, which deletes such rows."
        )
    return "The table has a row, MongoDB has no document of it. Repair deletes the row."


def _told(fields: Sequence[FieldDifference]) -> str:
    names = [each.pointer or "the whole document" for each in fields[:NAMED_FIELDS]]
    more = f" and {len(fields) - NAMED_FIELDS} more" if len(fields) > NAMED_FIELDS else ""
    return f"The row does not hold what the document says, at {', '.join(names)}{more}"
