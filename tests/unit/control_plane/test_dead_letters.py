"""The dead letters of one pipeline: nobody reaches those of another by naming them."""

from typing import Any

import pytest
from letters import KEYS, MemoryKafka, MemoryTopic, letter

from cdc_shared.dead_letters.dead_letters import DeadLetters
from cdc_shared.dead_letters.letter import Place
from cdc_shared.dead_letters.letter_topic import LetterTopic
from cdc_shared.dead_letters.rejection import ReasonCode
from cdc_shared.dead_letters.sealed_record import RawRecord
from cdc_shared.documents import event_key
from cdc_shared.kafka.topics import TopicIdentity
from cdc_shared.models.common import PipelineSpec
from cdc_shared.settings import ObjectStoreSettings
from control_plane.models.dead_letters import LettersMeant
from control_plane.models.pages import decode_cursor
from control_plane.problems import Problem
from control_plane.services.dead_letters import PipelineLetters, letter_filter

pytestmark = pytest.mark.unit

SPEC: dict[str, Any] = {"name": "p", "source": {"connection": "env:URI", "database": "db"}}


class Facts:
    def identity(self, topic: str) -> TopicIdentity:
        return TopicIdentity("id", 1)

    def max_record_bytes(self, topic: str) -> int:
        return 4096


class Rig:
    def __init__(self) -> None:
        self.topic = MemoryTopic()
        self.kafka = MemoryKafka(self.topic)
        self.letters = PipelineLetters(
            lambda: DeadLetters(
                LetterTopic(self.topic.open),
                Facts,
                lambda: KEYS,
                ObjectStoreSettings(),
                lambda _: PipelineSpec.model_validate(SPEC),
                lambda: self.kafka,  # type: ignore[arg-type,return-value]
                lambda: self.kafka,  # type: ignore[arg-type,return-value]
            )
        )

    def write(self, offset: int, **about: Any) -> str:
        made = letter(offset, **about)
        self.topic.write(made, RawRecord(event_key(str(offset)), b"secret text"))
        return str(made.place)

    def names(self, pipeline: str) -> list[str]:
        which = letter_filter(pipeline, None, None, None, None, None)
        return [each.letter for each in self.letters.page(which, 100, -1).items]


@pytest.fixture
def rig() -> Rig:
    return Rig()


def other_pipelines(rig: Rig) -> str:
    return rig.write(9, pipeline="q", place=Place("q.db.things", 0, 9), key_id=KEYS.current("q").id)


def test_pages_hold_the_pipelines_own_in_order(rig: Rig) -> None:
    mine = [rig.write(offset) for offset in range(5)]
    other_pipelines(rig)
    which = letter_filter("p", None, None, None, None, None)
    first = rig.letters.page(which, 2, -1)
    position = decode_cursor(first.next, int)
    assert position is not None
    second = rig.letters.page(which, 10, int(position[0]))
    assert [each.letter for each in first.items + second.items] == mine
    assert second.next is None


def test_a_letter_of_another_pipeline_is_not_there(rig: Rig) -> None:
    foreign = other_pipelines(rig)
    mine = rig.write(1)
    meant = LettersMeant(letters=(mine, foreign))
    for attempt in (
        lambda: rig.letters.show("p", foreign, reveal=True),
        lambda: rig.letters.replay("p", meant),
        lambda: rig.letters.discard("p", meant),
    ):
        with pytest.raises(Problem) as raised:
            attempt()
        assert (raised.value.status, raised.value.code) == (404, "no_dead_letter")
    assert rig.names("p") == [mine]
    assert rig.names("q") == [foreign]


def test_shown_masked_unless_revealed(rig: Rig) -> None:
    name = rig.write(1)
    assert "secret" not in rig.letters.show("p", name, reveal=False).model_dump_json()
    assert rig.letters.show("p", name, reveal=True).value == "secret text"


def test_discards_what_is_named_and_what_fits(rig: Rig) -> None:
    named, fitting, other = rig.write(1), rig.write(2, code="undecodable_key"), rig.write(3)
    assert rig.letters.discard("p", LettersMeant(letters=(named,))).discarded == 1
    assert rig.letters.discard("p", LettersMeant(code=ReasonCode.UNDECODABLE_KEY)).discarded == 1
    assert fitting not in rig.names("p")
    assert rig.names("p") == [other]
    with pytest.raises(Problem):
        rig.letters.discard("p", LettersMeant(letters=(named,)))


@pytest.mark.parametrize("body", [{}, {"all": True, "code": "malformed_event"}, {"all": False}])
def test_which_letters_has_to_be_said(body: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="say which"):
        LettersMeant.model_validate(body)
