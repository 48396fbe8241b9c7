"""What rules would make of a collection's newest events. Nothing is changed; everything here blocks.

Documents go through the definition of the rules, one by one, which the writer's engine must agree with.
"""

import json
from collections.abc import Iterator, Sequence
from typing import Any

from cdc_shared.dead_letters.inspection import structure
from cdc_shared.dead_letters.rejection import ReasonCode, Rejection
from cdc_shared.documents import InvalidDocument, dump
from cdc_shared.documents.bson_values import DuplicateKeys
from cdc_shared.documents.envelope import decode_envelopes
from cdc_shared.documents.extended_json import parse_document
from cdc_shared.kafka.newest_records import Record
from cdc_shared.models.data_quality import DirtyDataSpec, QualitySpec
from cdc_shared.rules.compiled import Rules, Secrets
from cdc_shared.rules.transformation import Document
from control_plane.models.data_quality import DryRunEvent, DryRunResult, RejectedBy


def dry_run(
    records: Sequence[Record], quality: QualitySpec, collection: str, secrets: Secrets, *, reveal: bool
) -> DryRunResult:
    """What the rules would make of these records. Values are shown only with `reveal`; raises `InvalidRules`."""
    rules = Rules.compile(quality, collection, secrets)
    events = [
        _event(record, text, rules, quality.dirty_data, reveal=reveal) for record, text in _with_documents(records)
    ]
    return DryRunResult(
        values_shown=reveal,
        read=len(events),
        rejected=sum(each.rejected is not None for each in events),
        changed=sum(bool(each.changed) for each in events),
        events=events,
    )


def _with_documents(records: Sequence[Record]) -> Iterator[tuple[Record, str]]:
    envelopes = decode_envelopes([each.key for each in records], [each.value for each in records])
    for record, text in zip(records, envelopes.afters, strict=True):
        if text is not None:
            yield record, text


def _event(record: Record, text: str, rules: Rules, dirty_data: DirtyDataSpec, *, reveal: bool) -> DryRunEvent:
    place = f"{record.topic}:{record.partition}:{record.offset}"
    try:
        before = parse_document(text)
    except InvalidDocument as error:
        rejection = Rejection(ReasonCode.MALFORMED_DOCUMENT, str(error))
        return _answer(place, None, None, rejection, dirty_data, reveal=reveal)
    found = rules.validate_document(before)
    after = None if found else rules.transform_document(before)
    return _answer(place, before, after, found, dirty_data, reveal=reveal)


def _answer(
    place: str,
    before: Document | None,
    after: Document | None,
    rejection: Rejection | None,
    dirty_data: DirtyDataSpec,
    *,
    reveal: bool,
) -> DryRunEvent:
    return DryRunEvent(
        event=place,
        rejected=None if rejection is None else _rejected(rejection, dirty_data),
        changed=[] if before is None or after is None else sorted(_changed(before, after)),
        before=_shown(before, reveal=reveal),
        after=_shown(after, reveal=reveal),
    )


def _rejected(rejection: Rejection, dirty_data: DirtyDataSpec) -> RejectedBy:
    policy = rejection.policy or dirty_data.policy
    return RejectedBy(code=rejection.code, rule=rejection.rule, message=rejection.message, policy=policy)


def _shown(document: Document | None, *, reveal: bool) -> Any:
    if document is None:
        return None
    if reveal:
        return json.loads(dump(document))
    return structure(dict(document.pairs) if isinstance(document, DuplicateKeys) else document)


def _changed(before: Any, after: Any, path: str = "") -> Iterator[str]:
    """The fields that are different, added or gone; an array is one field."""
    if not isinstance(before, dict) or not isinstance(after, dict):
        if dump(before) != dump(after):
            yield path
        return
    for name in before.keys() | after.keys():
        pointer = f"{path}/{name.replace('~', '~0').replace('/', '~1')}"
        if name in before and name in after:
            yield from _changed(before[name], after[name], pointer)
        else:
            yield pointer
