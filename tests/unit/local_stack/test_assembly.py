"""What is said when ports move."""

import pytest

from local_stack.assembly import moves
from local_stack.ports import PORTS

pytestmark = pytest.mark.unit

DEFAULTS = {spec.variable: spec.default for spec in PORTS}


def test_nothing_is_said_when_everything_is_where_it_was() -> None:
    assert moves({}, DEFAULTS) == []
    moved = {**DEFAULTS, "S3_PORT": 8399}
    assert moves(moved, moved) == []


def test_a_default_that_is_taken_is_said_once() -> None:
    assert moves({}, {**DEFAULTS, "S3_PORT": 8334}) == ["S3_PORT is 8334, because 8333 is taken or set otherwise"]


def test_who_deployed_connectors_learns_that_mongodb_moved() -> None:
    texts = moves(DEFAULTS, {**DEFAULTS, "MONGODB_PORT": 27018})

    assert len(texts) == 2
    assert "deploy-connector.sh" in texts[1]
