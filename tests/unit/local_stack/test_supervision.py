"""supervisord's configuration: parsed by supervisord's own parser, it gives back what the parts asked for."""

import shlex
from dataclasses import replace
from pathlib import Path

import pytest
from supervisor.options import ServerOptions

from local_stack.layout import Layout
from local_stack.parts.part import Part
from local_stack.supervision import DIGEST_VARIABLE, render_config

pytestmark = pytest.mark.unit


def part(**changes: object) -> Part:
    made = Part(name="example", endpoint="", ready=lambda: "", command=("/bin/a program", "--path=/with space", "100%"))
    return replace(made, **changes)  # type: ignore[arg-type]


def parsed(layout: Layout, *parts: Part) -> ServerOptions:
    config = layout.local / "supervisord.conf"
    config.write_text(render_config(layout, parts))
    options = ServerOptions()
    options.realize(["-c", str(config)])
    return options


def program(layout: Layout, *parts: Part):
    [group] = parsed(layout, *parts).process_group_configs
    [config] = group.process_configs
    return config


def test_a_command_arrives_word_for_word(layout: Layout) -> None:
    config = program(layout, part())

    assert shlex.split(config.command) == ["/bin/a program", "--path=/with space", "100%"]


def test_the_environment_arrives_value_for_value(layout: Layout) -> None:
    environment = {"URI": "mongodb://u:p%40ss@h/?a=b&c=d,e", "KEY": "5e" * 32, "OWN": "a, b%c=#d;"}

    assert program(layout, part(environment=environment)).environment == environment


def test_parts_start_when_told_and_again_when_they_die(layout: Layout) -> None:
    config = program(layout, part(stop_signal="INT", stop_within_s=7))

    assert not config.autostart
    assert config.autorestart
    assert config.stopsignal == 2
    assert config.stopwaitsecs == 7
    assert config.killasgroup
    assert config.stdout_logfile == str(layout.logs / "example.log")
    assert 0 < config.stdout_logfile_maxbytes <= 10 * 1024 * 1024


def test_a_part_that_is_not_ours_to_run_is_not_there(layout: Layout) -> None:
    assert parsed(layout, part(command=())).process_group_configs == []


def test_a_changed_file_is_a_changed_program(layout: Layout) -> None:
    def digest(text: str) -> str:
        return str(program(layout, part(files={Path("/etc/x"): text})).environment[DIGEST_VARIABLE])

    assert digest("a=1") == digest("a=1")
    assert digest("a=1") != digest("a=2")


def test_the_socket_is_for_this_user_alone(layout: Layout) -> None:
    [server] = parsed(layout, part()).server_configs

    assert server["file"] == str(layout.supervisor_socket)
    assert server["chmod"] == 0o700


def test_changed_code_makes_a_changed_program(layout: Layout) -> None:
    """After an update of the checkout `make up` restarts what runs its code."""
    sources = layout.local / "src"
    (sources / "package").mkdir(parents=True)
    code = sources / "package" / "module.py"
    code.write_text("x = 1\n")
    before = program(layout, part(sources=(sources,))).environment[DIGEST_VARIABLE]

    assert program(layout, part(sources=(sources,))).environment[DIGEST_VARIABLE] == before
    code.write_text("x = 2\n")
    assert program(layout, part(sources=(sources,))).environment[DIGEST_VARIABLE] != before
