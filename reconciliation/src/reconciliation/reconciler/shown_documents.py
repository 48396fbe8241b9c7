"""What a report shows of a document and of its row: as the table has them, masked, and as much as there is room for."""

from collections.abc import Sequence
from typing import Any, Final

from cdc_shared.documents import dump, pointer_names
from reconciliation.reconciler.difference import FieldDifference
from reconciliation.reconciler.rules_versions import PublishedRules

MAX_CHARACTERS: Final = 16 * 1024
"""Of one document: of a longer one only the fields that differ are shown."""
MAX_CHARACTERS_IN_ALL: Final = 64 * 1024 * 1024
"""Of all that one run shows: they are held in memory."""

TOO_LONG: Final = "It is too long to be shown here."
NO_ROOM: Final = "It is not shown: so many came before it that there is no room."
UNMASKED: Final = "Its values are not shown: the rules in force mask more than those that its row was made by."


class ShownDocuments:
    """Decides for one run."""

    def __init__(self, newest: PublishedRules) -> None:
        self._masks = frozenset(newest.rules.masks)
        self._left = MAX_CHARACTERS_IN_ALL

    def texts(
        self, made_by: PublishedRules, fields: Sequence[FieldDifference], *documents: Any
    ) -> tuple[list[str | None], str]:
        """Return the documents as Extended JSON, and why one is not shown; "" when all are.

        `made_by`: the rules that these documents, as BSON values, went through. None stays None.
        """
        if not self._masks <= frozenset(made_by.rules.masks):
            return [None] * len(documents), UNMASKED
        shown = [None if each is None else _text(each, fields) for each in documents]
        why = (
            TOO_LONG
            if any(text is None and each is not None for text, each in zip(shown, documents, strict=True))
            else ""
        )
        size = sum(len(text) for text in shown if text is not None)
        if size > self._left:
            return [None] * len(documents), NO_ROOM
        self._left -= size
        return shown, why


def _text(document: Any, fields: Sequence[FieldDifference]) -> str | None:
    text = dump(document)
    if len(text) > MAX_CHARACTERS and type(document) is dict:
        wanted = {"_id", *(name for each in fields for name in pointer_names(each.pointer)[:1])}
        text = dump({name: value for name, value in document.items() if name in wanted})
    return text if len(text) <= MAX_CHARACTERS else None
