"""Which documents have dead letters, by their keys: what a letter is about is sealed, so it is opened and forgotten."""

from collections.abc import Callable, Collection, Mapping, Sequence

from cdc_shared.dead_letters.lake_records import get_from_lake
from cdc_shared.dead_letters.letter import Letter, LetterFilter, StoredLetter
from cdc_shared.dead_letters.letter_topic import LetterTopic
from cdc_shared.dead_letters.sealed_record import unseal
from cdc_shared.errors import Fatal
from cdc_shared.logging.structured_logger import get_logger
from cdc_shared.security.crypto import DecryptionFailed
from cdc_shared.security.data_key import DataKeys
from cdc_shared.settings import ObjectStoreSettings
from reconciliation.sources.changed_keys import key_text_of

log = get_logger(__name__)


class DeadLetterKeys:
    """The letters that stand of one change topic."""

    def __init__(
        self,
        letters: LetterTopic,
        pipeline: str,
        topic: str,
        keys: DataKeys,
        stores: ObjectStoreSettings,
        table_key: Callable[[str], str],
    ) -> None:
        """`table_key`: key text of an `_id` → the key as the table has it (`Rules.key_text`)."""
        self._letters = letters
        self._which = LetterFilter(pipeline=pipeline, topic=topic)
        self._keys = keys
        self._stores = stores
        self._table_key = table_key

    def of(self, keys: Collection[str]) -> Mapping[str, Sequence[Letter]]:
        """Return the letters of these keys, as the table has them. A letter that cannot be opened is left out.

        Raises `Transient`, and `Fatal` when Kafka refuses.
        """
        wanted = frozenset(keys)
        found: dict[str, list[Letter]] = {}
        sealed = 0
        for stored in self._letters.letters(self._which):
            try:
                key = self._key(stored)
            except (Fatal, DecryptionFailed):  # its data key is gone, or its content in the lake
                sealed += 1
                continue
            if key is not None and (shown := self._table_key(key)) in wanted:
                found.setdefault(shown, []).append(stored.letter)
        if sealed:
            log.warning("dead letters that cannot be opened explain nothing", letters=sealed, topic=self._which.topic)
        return found

    def _key(self, stored: StoredLetter) -> str | None:
        value = stored.value if stored.letter.lake_url is None else get_from_lake(stored.letter, self._stores)
        return key_text_of(unseal(value, stored.letter, self._keys).key)
