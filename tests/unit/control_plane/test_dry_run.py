"""A dry run: what rules would make of events, and who sees their values."""

import json

import pytest
from debezium_events import event_key, event_value

from cdc_shared.kafka.newest_records import Record
from cdc_shared.models.data_quality import QualitySpec
from cdc_shared.rules.rule_checks import InvalidRules
from control_plane.services.dry_run import dry_run

pytestmark = pytest.mark.unit

SECRET = "4111 1111 1111 1111"
DOCUMENT = {"_id": 1, "card": {"number": SECRET, "a/b": 1}, "total": 5, "tags": ["x"], "kept": None}
RULES = {
    "validation": [{"rule": "range", "name": "positive", "path": "/total", "min": 0}],
    "transformation": [
        {"rule": "redact", "path": "/card/number"},
        {"rule": "rename", "path": "/total", "to": "sum"},
        {"rule": "drop", "path": "/tags"},
    ],
}


def record(document: dict[str, object] | None, offset: int = 0, value: bytes | None = None) -> Record:
    made = event_value("d" if document is None else "c", document, pipeline="p", database="d", collection="c", ts_ms=1)
    return Record("p.d.c", 0, offset, event_key(1), value or made)


def run(*records: Record, reveal: bool = True, **quality: object):  # type: ignore[no-untyped-def]
    rules = QualitySpec.model_validate(quality or RULES)
    return dry_run(records, rules, "c", lambda reference: b"k" * 32, reveal=reveal)


def test_shows_what_changes_and_what_is_rejected() -> None:
    result = run(record(DOCUMENT), record({**DOCUMENT, "total": -1}, 1))
    changed, rejected = result.events
    assert (result.read, result.rejected, result.changed) == (2, 1, 1)
    assert changed.event == "p.d.c:0:0"
    assert changed.changed == ["/card/number", "/sum", "/tags", "/total"]
    assert changed.rejected is None
    assert SECRET in json.dumps(changed.before)
    assert SECRET not in json.dumps(changed.after)
    assert changed.after["sum"] == {"$numberInt": "5"}
    assert rejected.rejected is not None
    assert (rejected.rejected.rule, rejected.rejected.code, rejected.rejected.policy) == (
        "positive",
        "validation_failed",
        "dlq",
    )
    assert rejected.after is None


def test_without_permission_no_value_is_shown_before_or_after() -> None:
    """Else an empty set of rules would show everything to whoever may try rules."""
    result = run(record(DOCUMENT), reveal=False, dirty_data={"policy": "skip"})
    assert result.values_shown is False
    (event,) = result.events
    assert event.before == event.after
    assert event.before["card"] == {"number": "string", "a/b": "long"}
    assert SECRET not in result.model_dump_json()


def test_events_without_a_document_are_left_out_and_broken_ones_are_rejected() -> None:
    broken = json.loads(record(DOCUMENT).value)
    broken["after"] = '{"_id": '
    result = run(record(None), record(None, 1, b"rubbish"), record(None, 2, json.dumps(broken).encode()))
    (event,) = result.events
    assert event.event.endswith(":2")
    assert event.rejected is not None
    assert event.rejected.code == "malformed_document"


def test_names_with_special_characters_are_pointers() -> None:
    result = run(record(DOCUMENT), transformation=[{"rule": "drop", "path": "/card/a~1b"}])
    assert result.events[0].changed == ["/card/a~1b"]


def test_repeated_names_are_shown_and_do_not_fail() -> None:
    doubled = json.loads(record(DOCUMENT).value)
    doubled["after"] = '{"_id": 1, "a": 1, "a": 2}'
    for reveal in (True, False):
        result = run(record(None, 0, json.dumps(doubled).encode()), reveal=reveal)
        assert result.read == 1


def test_rules_whose_key_cannot_be_had_are_refused_by_name() -> None:
    def no_secret(reference: str) -> bytes:
        return b"short"

    rules = QualitySpec.model_validate({"transformation": [{"rule": "hash", "path": "/a", "key": "env:K"}]})
    with pytest.raises(InvalidRules, match="transformation rule 1"):
        dry_run([], rules, "c", no_secret, reveal=True)
