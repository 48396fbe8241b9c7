"""What is said when ports move, and when the source does."""

from dataclasses import replace

import pytest

from local_stack.assembly import assemble_as_started, lost_source, moves, own_mongodb_as_started, parts_of
from local_stack.credentials import load_or_generate
from local_stack.endpoints import endpoint_values, render_endpoints
from local_stack.ports import PORTS, write_ports
from local_stack.private_files import write_private
from local_stack.stack import Stack

pytestmark = pytest.mark.unit

OWN = "mongodb://user:hunter2@db.example:27017/?replicaSet=rs0"
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


def test_who_loses_their_own_mongodb_learns_which_and_how_to_keep_it() -> None:
    text = lost_source(OWN, None)

    assert text is not None
    assert text.startswith("MongoDB is now the embedded SecantusDB; before it was mongodb://db.example:27017. ")
    assert "Set MONGODB_URI" in text
    assert "hunter2" not in text


def test_one_own_mongodb_in_place_of_another_is_said_without_credentials() -> None:
    text = lost_source(OWN, "mongodb+srv://user:hunter3@cluster.example/?retryWrites=true")

    assert text is not None
    assert "now mongodb+srv://cluster.example; before it was mongodb://db.example:27017" in text
    assert "hunter" not in text


@pytest.mark.parametrize(
    ("before", "now"), [(None, None), (None, OWN), (OWN, OWN), (OWN, OWN.replace("hunter2", "hunter3"))]
)
def test_nothing_is_said_while_the_source_stays_or_becomes_the_users(before: str | None, now: str | None) -> None:
    assert lost_source(before, now) is None


@pytest.mark.parametrize("uri", [None, OWN, "mongodb://127.0.0.1:27017,127.0.0.1:27018/?replicaSet=secantus"])
def test_the_source_of_the_last_start_is_known(stack: Stack, uri: str | None) -> None:
    """Also when the file of ports is gone, or already holds other ones."""
    started = replace(stack, settings=replace(stack.settings, mongodb_uri=uri))
    stack.layout.endpoints.write_text(render_endpoints(endpoint_values(started, prometheus=False)))

    assert own_mongodb_as_started(stack.layout) == uri


def test_a_stack_started_before_a_part_was_new_can_still_be_looked_at(stack: Stack) -> None:
    layout = stack.layout
    write_ports(layout.ports, {name: port for name, port in stack.ports.items() if name != "API_PORT"})
    write_private(layout.endpoints, render_endpoints(endpoint_values(stack, prometheus=False)))
    load_or_generate(layout.secrets, has_data=False)

    parts = {part.name: part for part in parts_of(assemble_as_started(layout))}

    assert parts["api"].endpoint == "http://127.0.0.1:8000"
