"""`delta-writer dead-letters`: what it says, for people and for programs."""

from __future__ import annotations

import json
import signal
from collections import Counter
from typing import Any

import pytest
from letters import letter
from typer.testing import CliRunner

from cdc_shared.dead_letters.dead_letters import LetterPage, Replayed
from cdc_shared.dead_letters.inspection import ShownLetter
from cdc_shared.dead_letters.letter import ALL_LETTERS, LetterFilter, ListedLetter, NoLetter, Place
from delta_writer import dead_letters_command
from delta_writer.command_line import app

pytestmark = pytest.mark.unit

LETTER = letter(rule="amount", attempt=2, first_seen_ms=1_700_000_000_000)
NAME = "p.db.things:0:7"


class FakeDeadLetters:
    """Notes what it is asked for."""

    def __init__(self) -> None:
        self.asked: list[Any] = []
        self.page = LetterPage([ListedLetter(LETTER, 3, 1_700_000_001_500)], None)
        self.replayed = Replayed(2)
        self.fitting = 3

    def count(self, which: LetterFilter) -> int:
        return self.fitting

    def list_letters(self, *args: Any) -> LetterPage:
        self.asked.append(args)
        return self.page

    def show(self, place: Place, *, reveal: bool) -> ShownLetter:
        self.asked.append(place)
        return ShownLetter(LETTER, 5, {"id": "long"}, {"after": "Ursula" if reveal else "string"}, reveal)

    def replay(self, which: Any, progress: Any) -> Replayed:
        self.asked.append(which)
        _check_stands(which)
        progress(1000)
        return self.replayed

    def discard(self, which: Any, progress: Any) -> int:
        self.asked.append(which)
        _check_stands(which)
        return 1


def _check_stands(which: Any) -> None:
    if isinstance(which, Place) and which.offset == 404:
        raise NoLetter(f"there is no dead letter {which}")


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeDeadLetters:
    made = FakeDeadLetters()
    monkeypatch.setattr(dead_letters_command, "_dead_letters", lambda: made)
    return made


def run(*words: str, answer: str = "") -> Any:
    return CliRunner().invoke(app, ["dead-letters", *words], input=answer)


def test_a_list_is_a_line_a_letter_and_says_how_to_go_on(fake: FakeDeadLetters) -> None:
    fake.page = LetterPage(fake.page.letters, 3)
    assert run("list").output.splitlines() == [
        f"2023-11-14T22:13:21.500Z  {NAME}  p  malformed_event (amount): not JSON, attempt 2",
        "there are more: --after 3",
    ]
    fake.page = LetterPage([], None)
    assert run("list").output == "no dead letters\n"


def test_the_options_tell_letters_apart(fake: FakeDeadLetters) -> None:
    options = ["--pipeline", "p", "--collection", "things", "--code", "validation_failed", "--rule", "amount"]
    result = run("list", *options, "--since", "2026-01-31T12:00:00Z", "--until", "2026-02-01", "--limit", "7", "--json")
    assert fake.asked == [
        (
            LetterFilter(
                pipeline="p",
                collection="things",
                code="validation_failed",
                rule="amount",
                since_ms=1_769_860_800_000,
                until_ms=1_769_904_000_000,
            ),
            7,
            -1,
        )
    ]
    (listed,) = json.loads(result.output)["letters"]
    assert listed["letter"] == NAME
    assert listed["first_seen"] == "2023-11-14T22:13:20.000Z"
    assert (listed["code"], listed["attempt"], listed["size_bytes"]) == ("malformed_event", 2, 2)


def test_a_letter_is_shown_masked_unless_it_is_to_be_revealed(fake: FakeDeadLetters) -> None:
    said = run("show", NAME).output
    assert ("Ursula" in said, "None" in said) == (False, False)
    shown = json.loads(run("show", NAME, "--reveal", "--json").output)
    assert (shown["record"]["value"], shown["revealed"]) == ({"after": "Ursula"}, True)
    assert fake.asked == [LETTER.place] * 2


def test_replay_says_what_cannot_be_and_fails(fake: FakeDeadLetters) -> None:
    assert run("replay", NAME).output.endswith("2 letters replayed\n")
    fake.replayed = Replayed(1, Counter({"no key": 1}), [(LETTER.place, "no key")])
    result = run("replay", "--all")
    assert result.exit_code == 1
    assert "1 letter replayed" in result.stdout
    assert f"1 letter cannot be: no key\n  {NAME}\n" in result.stderr
    machine = run("replay", "--all", "--json")
    assert json.loads(machine.stdout) == {
        "replayed": 1,
        "refused": {"no key": 1},
        "examples": [{"letter": NAME, "reason": "no key"}],
    }
    assert fake.asked == [LETTER.place, ALL_LETTERS, ALL_LETTERS]


def test_discard_asks_before_it_takes_many(fake: FakeDeadLetters) -> None:
    refused = run("discard", "--pipeline", "p", answer="n\n")
    assert (refused.exit_code, fake.asked) == (1, [])
    assert "Discard 3 letters?" in refused.output
    assert "1 letter discarded" in run("discard", "--pipeline", "p", answer="y\n").output
    assert "1 letter discarded" in run("discard", "--pipeline", "p", "--yes").output
    assert run("discard", NAME, NAME, "--json").stdout == '{"discarded": 2}\n'
    fake.fitting = 0
    assert "Discard" not in run("discard", "--pipeline", "p").output, "nothing fits: there is nothing to ask"


@pytest.mark.parametrize(("command", "done"), [("replay", "4 letters replayed"), ("discard", "2 letters discarded")])
def test_an_error_does_not_hide_what_was_done_before_it(fake: FakeDeadLetters, command: str, done: str) -> None:
    result = run(command, NAME, NAME, "p.db.things:0:404", NAME)
    assert (result.exit_code, result.stdout) == (1, f"{done}\n")
    assert "error: there is no dead letter p.db.things:0:404" in result.stderr
    assert "0 letters" not in run(command, "p.db.things:0:404").output


@pytest.mark.parametrize("command", ["replay", "discard"])
@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], "say which"),
        (["--all", "--pipeline", "p"], "--all leaves no room"),
        ([NAME, "--all"], "not both"),
        ([NAME, "--pipeline", "p"], "not both"),
        (["--since", "yesterday"], "2026-01-31T12:00:00Z"),
        (["--code", "other"], "malformed_event"),
    ],
)
def test_what_is_meant_must_be_clear(fake: FakeDeadLetters, command: str, words: list[str], says: str) -> None:
    result = run(command, *words)
    assert result.exit_code == 2
    assert says in " ".join(result.output.replace("│", " ").split())
    assert fake.asked == []


def test_errors_are_one_line(fake: FakeDeadLetters) -> None:
    for words in (["show", "nonsense"], ["discard", "p.db.things:0:404"]):
        result = run(*words)
        assert (result.exit_code, result.stderr.count("\n")) == (1, 1)
        assert result.stderr.startswith("error: ")


def test_without_a_key_no_writer_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CDC_DATA_KEY", raising=False)
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", "127.0.0.1:1")
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    result = CliRunner().invoke(app, ["run"])
    assert (result.exit_code, "CDC_DATA_KEY is not set: set it to a reference" in result.stderr) == (1, True)


def test_without_a_key_it_says_how_to_set_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CDC_DATA_KEY", raising=False)
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", "127.0.0.1:1")
    monkeypatch.setattr(dead_letters_command, "configure_logging", lambda *_: None)
    result = run("replay", "--all")
    assert (result.exit_code, "CDC_DATA_KEY is not set: set it to a reference" in result.stderr) == (1, True)
