"""Ports: defaults where free, kept over restarts, never those of another checkout, the user's own or none."""

from collections.abc import Callable
from pathlib import Path

import pytest

from local_stack.errors import StackError
from local_stack.ports import (
    GRPC_OFFSET,
    PORTS,
    choose_ports,
    numbers_of,
    other_checkouts,
    read_ports,
    write_ports,
)

pytestmark = pytest.mark.unit

DEFAULTS = {spec.variable: spec.default for spec in PORTS}


def all_but(*taken: int) -> Callable[[int], bool]:
    return lambda port: port not in taken


def test_the_defaults_do_not_collide_and_are_taken_when_free() -> None:
    assert choose_ports({}, {}, (), all_but()) == DEFAULTS
    assert len(numbers_of(DEFAULTS)) == sum(len(spec.offsets) for spec in PORTS)


def test_the_next_free_port_takes_the_place_of_a_taken_default() -> None:
    chosen = choose_ports({}, {}, (), all_but(27017, 27018))

    assert chosen == {**DEFAULTS, "MONGODB_PORT": 27019}


def test_parts_do_not_get_each_others_ports() -> None:
    # Kafka moves off 9092 and must skip 9093, which the controller takes; whichever way round, all differ.
    chosen = choose_ports({}, {}, (), all_but(9092))

    assert chosen["KAFKA_PORT"] != chosen["KAFKA_CONTROLLER_PORT"]
    assert len(numbers_of(chosen)) == sum(len(spec.offsets) for spec in PORTS)


def test_a_port_whose_grpc_companion_is_taken_is_not_chosen() -> None:
    assert choose_ports({}, {}, (), all_but(8333 + GRPC_OFFSET))["S3_PORT"] == 8334


def test_kept_ports_stay_even_when_the_default_is_free_again() -> None:
    kept = {**DEFAULTS, "POSTGRES_PORT": 5439}

    assert choose_ports({}, kept, (), all_but()) == kept


def test_a_kept_port_that_somebody_took_is_given_up() -> None:
    assert choose_ports({}, {"POSTGRES_PORT": 5439}, (), all_but(5439))["POSTGRES_PORT"] == 5432


def test_ports_of_a_stopped_checkout_are_left_to_it() -> None:
    assert choose_ports({}, {}, {27017}, all_but())["MONGODB_PORT"] == 27018


def test_a_port_that_the_user_set_is_used_or_refused() -> None:
    assert choose_ports({"S3_PORT": 9000}, {"S3_PORT": 8333}, (), all_but())["S3_PORT"] == 9000
    with pytest.raises(StackError, match=r"S3_PORT=9000 is taken.*\.env"):
        choose_ports({"S3_PORT": 9000}, {}, (), all_but(9000))


def test_a_port_that_the_user_set_wins_over_another_parts_default() -> None:
    chosen = choose_ports({"WRITER_HTTP_PORT": 27017}, {}, (), all_but())

    assert chosen["WRITER_HTTP_PORT"] == 27017
    assert chosen["MONGODB_PORT"] == 27018


def test_no_free_port_is_said() -> None:
    with pytest.raises(StackError, match="no free port near 27017 for MONGODB_PORT"):
        choose_ports({}, {}, (), lambda _: False)


def test_chosen_ports_are_read_back_and_a_damaged_file_counts_as_none(tmp_path: Path) -> None:
    path = tmp_path / "ports.json"
    write_ports(path, DEFAULTS)
    assert read_ports(path) == DEFAULTS

    path.write_text('{"MONGODB_PORT": ')
    assert read_ports(path) == {}
    assert read_ports(tmp_path / "absent.json") == {}


def test_checkouts_learn_of_each_other_and_forget_deleted_ones(tmp_path: Path) -> None:
    first, second = tmp_path / "first.json", tmp_path / "second.json"
    with other_checkouts(tmp_path, first) as reserved:
        assert reserved == set()
        write_ports(first, DEFAULTS)
    with other_checkouts(tmp_path, second) as reserved:
        assert reserved == numbers_of(DEFAULTS)
        assert 8333 + GRPC_OFFSET in reserved
        write_ports(second, {**DEFAULTS, "MONGODB_PORT": 27018})

    second.unlink()
    with other_checkouts(tmp_path, first) as reserved:
        assert reserved == set()
