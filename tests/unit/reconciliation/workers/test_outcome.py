"""What a task came to travels between processes, and carries no value of a document."""

from __future__ import annotations

import pickle
from typing import Any

import pytest

from cdc_shared.errors import CdcError, Fatal, ResyncNeeded, Transient
from cdc_shared.source.errors import RequestRefused
from reconciliation.reconciler.progress import Cancelled, Stopped
from reconciliation.workers.outcome import Outcome, outcome_of

pytestmark = pytest.mark.unit


def travelled(outcome: Outcome[Any]) -> Outcome[Any]:
    loaded: Outcome[Any] = pickle.loads(pickle.dumps(outcome))
    return loaded


def test_a_result_comes_back() -> None:
    assert travelled(outcome_of(len, "four")).unwrap() == 4
    assert travelled(outcome_of(print, "")).unwrap() is None


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (Transient("away"), Transient),
        (Fatal("stop"), Fatal),
        (RequestRefused("not like this", "BadValue"), Fatal),  # which pickle cannot load again
        (ResyncNeeded("again"), Fatal),
        (Cancelled("enough"), Cancelled),
        (Stopped("later"), Stopped),
    ],
)
def test_an_error_keeps_its_kind_and_text(error: CdcError, kind: type[CdcError]) -> None:
    def fail(_: None) -> None:
        raise error

    with pytest.raises(kind) as raised:
        travelled(outcome_of(fail, None)).unwrap()
    assert type(raised.value) is kind
    assert str(raised.value) == str(error)


def test_a_fault_of_ours_is_fatal_and_tells_its_place_and_no_value() -> None:
    with pytest.raises(Fatal, match="unexpected ValueError") as raised:
        travelled(outcome_of(int, "card 4111 1111")).unwrap()
    assert "4111" not in str(raised.value)
