"""What people type for an `_id`, and what they are told."""

from __future__ import annotations

from typing import Any

import pytest

from cdc_shared.errors import Fatal
from cdc_shared.kafka.reread_requests import RereadsRequested
from cdc_shared.models.common import PipelineSpec
from delta_writer.source import reread_command
from delta_writer.source.reread_command import key_of, reread

pytestmark = pytest.mark.unit

SPEC = PipelineSpec.model_validate(
    {"name": "p", "source": {"connection": "env:X", "database": "db", "include_collections": ["things"]}}
)


@pytest.mark.parametrize(
    ("typed", "key"),
    [
        ("42", "42"),
        ("42.0", "42.0"),
        ('{"$numberLong": "42"}', "42"),
        ('"text"', '"text"'),
        ("64BB5A801a2b3c4d5e000000", '{"$oid": "64bb5a801a2b3c4d5e000000"}'),
        ("640000000000000000000000", '{"$oid": "640000000000000000000000"}'),
        ('"64bb5a801a2b3c4d5e000000"', '"64bb5a801a2b3c4d5e000000"'),
        ('{"$oid":"64bb5a801a2b3c4d5e000000"}', '{"$oid": "64bb5a801a2b3c4d5e000000"}'),
        ('{"$date": "2024-01-01T01:00:00+01:00"}', '{"$date": "2024-01-01T00:00:00Z"}'),
        ('{"b":1, "a":"x"}', '{"b": 1,"a": "x"}'),
    ],
)
def test_an_id_as_people_write_it_is_debeziums_key(typed: str, key: str) -> None:
    assert key_of(typed) == key


@pytest.mark.parametrize(
    "typed", ["text", "", "[1]", '{"$regex": "a", "$options": ""}', "12345678901234567890123", "{"]
)
def test_what_is_no_id_is_not_taken_for_one(typed: str) -> None:
    assert key_of(typed) is None


class Requests:
    def __init__(self, failed: dict[str, str] | None = None) -> None:
        self.keys: list[str] = []
        self._failed = failed or {}

    def __call__(self, *args: Any, reason: str) -> RereadsRequested:
        self.keys = args[-1]
        return RereadsRequested(len(self.keys) - len(self._failed), self._failed)


def test_it_says_what_it_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    sent, said = Requests(), list[str]()
    monkeypatch.setattr(reread_command, "request_rereads", sent)
    reread("k:9092", SPEC, "things", ["1", '"x"'], "why", said.append)
    assert sent.keys == ["1", '"x"']
    assert said == ["2 re-read requests sent to p.db.things"]


def test_nothing_is_sent_when_an_id_is_wrong_or_the_collection_is_not_captured(monkeypatch: pytest.MonkeyPatch) -> None:
    sent, said = Requests(), list[str]()
    monkeypatch.setattr(reread_command, "request_rereads", sent)
    with pytest.raises(Fatal, match=r"nothing was sent, because 2 of 3 are no _id: abc, \[\]; write Extended JSON"):
        reread("k:9092", SPEC, "things", ["abc", "1", "[]"], "why", said.append)
    with pytest.raises(Fatal, match="does not capture other"):
        reread("k:9092", SPEC, "other", ["1"], "why", said.append)
    assert sent.keys == []
    assert said == []


def test_what_was_not_acknowledged_is_shown_and_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(reread_command, "request_rereads", Requests({"2": "too late"}))
    with pytest.raises(Fatal, match="1 of 2 requests"):
        reread("k:9092", SPEC, "things", ["1", "2"], "why", said.append)
    assert said == ["1 re-read request sent to p.db.things", "  not acknowledged: 2: too late"]
