"""The page on data flow tells the truth: each invariant is attacked by the tests it names, and tests know no others."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

pytestmark = pytest.mark.unit

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "architecture" / "data-flow.md"
_ROW = re.compile(r"^\| I(\d+) \| (.+)$", re.MULTILINE)
_NAMED = re.compile(r"\bI(\d{1,2})(?:(?:–| to )I(\d{1,2}))?\b")

ATTACKERS = {int(number): re.findall(r"`(tests/[^`]+)`", row) for number, row in _ROW.findall(PAGE.read_text("utf-8"))}


def named_invariants(text: str) -> set[int]:
    """The numbers of the invariants that a text names, ranges (I1 to I6) included."""
    return {n for first, last in _NAMED.findall(text) for n in range(int(first), int(last or first) + 1)}


def test_the_invariants_are_numbered_without_a_gap() -> None:
    assert sorted(ATTACKERS) == list(range(1, 15))


@pytest.mark.parametrize("number", sorted(ATTACKERS))
def test_every_named_attacker_says_so_itself(number: int) -> None:
    attackers = ATTACKERS[number]
    assert attackers
    silent = [name for name in attackers if number not in named_invariants((ROOT / name).read_text("utf-8"))]
    assert not silent, f"these do not say that they attack I{number}: {silent}"


def test_tests_name_no_invariant_that_is_not_defined() -> None:
    unknown = {
        f"{file.relative_to(ROOT)}: I{number}"
        for file in (ROOT / "tests").rglob("*.py")
        for number in named_invariants(file.read_text("utf-8")) - ATTACKERS.keys()
    }
    assert not unknown


def test_ranges_are_understood() -> None:
    assert named_invariants("Attacks I1–I3, I5 and I8 to I10; not SI1, I123.") == {1, 2, 3, 5, 8, 9, 10}
