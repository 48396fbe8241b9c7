"""Putting the stack together: settings, ports, credentials and prerequisites into parts."""

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from local_stack.credentials import ensure_data_key, load_or_generate
from local_stack.endpoints import read_endpoints
from local_stack.jars import ensure_jars, jars_directory
from local_stack.layout import Layout
from local_stack.parts.api import api
from local_stack.parts.connect import connect
from local_stack.parts.generator import generator
from local_stack.parts.kafka import kafka
from local_stack.parts.mongodb import hosts, mongodb
from local_stack.parts.object_store import object_store
from local_stack.parts.part import Part
from local_stack.parts.postgres import postgres
from local_stack.parts.prometheus import installed, prometheus
from local_stack.parts.reconciliation import reconciliation
from local_stack.parts.writer import writer
from local_stack.ports import PORTS, choose_ports, is_free, numbers_of, other_checkouts, read_ports, write_ports
from local_stack.prerequisites import require_java, require_maven
from local_stack.progress import Progress
from local_stack.settings import StackSettings, is_embedded_mongodb, load_settings
from local_stack.stack import Stack


def assemble(layout: Layout, *, running: bool, keep_sample: bool, progress: Progress) -> Stack:
    """The stack of this checkout, with everything it needs on the machine: Java, jars, ports, credentials.

    `running`: its supervisord is up, so the kept ports are taken by the stack itself.
    `keep_sample`: the sample's generator stays as it is. Raises `StackError`.
    """
    kept = read_ports(layout.ports)
    settings = load_settings(layout.root, os.environ, kept)
    if keep_sample:
        settings = replace(settings, sample=running and _sample_was_started(layout))
    java = require_java(progress)
    jars = ensure_jars(layout, lambda: require_maven(progress), java, progress)
    credentials = load_or_generate(layout.secrets, has_data=any(layout.data.iterdir()))
    ensure_data_key(layout.secrets)
    ports = _ports(layout, settings, kept, running=running)
    for text in moves(kept, ports):
        progress.line(f"  {text}")
    return Stack(layout, settings, ports, credentials, java, jars)


def assemble_as_started(layout: Layout) -> Stack:
    """The stack as the last start left it, for looking at it: nothing is installed, chosen or made.

    A part that is newer than that start has its default port; it does not run yet.
    """
    kept = {spec.variable: spec.default for spec in PORTS} | read_ports(layout.ports)
    settings = _settings_as_started(layout, kept)
    credentials = load_or_generate(layout.secrets, has_data=True)
    return Stack(layout, settings, kept, credentials, Path("java"), jars_directory(layout))


def parts_of(stack: Stack) -> list[Part]:
    """Every part, in the order in which people like to read them."""
    parts = [mongodb(stack), kafka(stack), connect(stack), object_store(stack), postgres(stack)]
    parts += [writer(stack), api(stack), reconciliation(stack)]
    if stack.settings.sample:
        parts.append(generator(stack))
    binary = installed()
    if binary is not None:
        parts.append(prometheus(stack, binary))
    return parts


def _settings_as_started(layout: Layout, kept: dict[str, int]) -> StackSettings:
    """What the last `up` was told, which may have been on its command line only."""
    settings = load_settings(layout.root, os.environ, kept)
    return replace(settings, mongodb_uri=own_mongodb_as_started(layout), sample=_sample_was_started(layout))


def own_mongodb_as_started(layout: Layout) -> str | None:
    """The replica set of the user's own that the last `up` was told of; None for SecantusDB. Raises `StackError`."""
    uri = read_endpoints(layout.endpoints).get("MONGODB_URI", "")
    return None if not uri or is_embedded_mongodb(uri) else uri


def lost_source(before: str | None, now: str | None) -> str | None:
    """What to tell people whose own replica set (its URI, `before`) is no longer the source; None when it still is.

    `MONGODB_URI` on the command line of one `make up` does not hold for the next.
    """
    if before is None or before == now:
        return None
    source = "the embedded SecantusDB" if now is None else hosts(now)
    if source == hosts(before):
        return None
    return (
        f"MongoDB is now {source}; before it was {hosts(before)}. Set MONGODB_URI (or put it in .env) to keep that one"
    )


def _sample_was_started(layout: Layout) -> bool:
    config = layout.supervisor_config
    return config.exists() and "[program:generator]" in config.read_text(encoding="utf-8")


def moves(kept: Mapping[str, int], chosen: Mapping[str, int]) -> list[str]:
    """What to tell people whose ports are not where they were, or not where they are by default."""
    texts = []
    for spec in PORTS:
        before, now = kept.get(spec.variable, spec.default), chosen[spec.variable]
        if before != now:
            texts.append(f"{spec.variable} is {now}, because {before} is taken or set otherwise")
    if kept and kept.get("MONGODB_PORT") != chosen["MONGODB_PORT"]:
        texts.append("deploy your own connectors again, they know MongoDB by its old port: scripts/deploy-connector.sh")
    return texts


def _ports(layout: Layout, settings: StackSettings, kept: dict[str, int], *, running: bool) -> dict[str, int]:
    with other_checkouts(layout.cache, layout.ports) as reserved:
        ours = numbers_of(kept) if running else set()
        ports = choose_ports(settings.ports, kept, reserved, lambda number: number in ours or is_free(number))
        write_ports(layout.ports, ports)
    return ports
