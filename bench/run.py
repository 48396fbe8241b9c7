"""`make bench`: what an initial load, mixed types, rules, reconciliation and 10,000 mixed changes cost here, with the
stack up.

Prints events a second and CPU seconds, and writes all figures as JSON under `bench/results/`.
"""

from __future__ import annotations

import json
import os
import platform
import tempfile
import time
import uuid
from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from confluent_kafka import KafkaException
from dotenv import dotenv_values
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from bench.changes import CHANGES_A_BATCH, MODES, CostOfChanges, measure_sizes
from bench.cost import peak_rss_mb
from bench.decoding import OTHER_TYPES, CostOfMixedTypes, measure_mixed_types
from bench.load import CostOfLoad, LoadBench
from bench.reconciliation import CostOfReconciling, measure_reconciling
from bench.rules import CostOfRules, measure_rules
from cdc_shared.errors import CdcError
from cdc_shared.settings import KafkaSettings, ObjectStoreSettings, load_settings
from cdc_shared.storage.object_store import delete_everything

RESULTS = Path(__file__).parent / "results"
ENDPOINTS = Path(__file__).parents[1] / ".local" / "endpoints.env"
SERVICES = ("KAFKA_BOOTSTRAP_SERVERS", "WRITER_URL", "DELTA_ROOT")


def main(
    events: Annotated[int, typer.Option(min=0, help="Events of the initial load; 0 leaves it out.")] = 200_000,
    rows: Annotated[str, typer.Option(help="Table sizes to change; empty leaves changes out.")] = "100000,1000000",
    documents: Annotated[
        int, typer.Option(min=0, help="Documents for mixed types, rules and reconciliation; 0 leaves them out.")
    ] = 100_000,
    batches: Annotated[int, typer.Option(min=1, help="Batches of 10,000 changes to take the median of.")] = 5,
    seed: Annotated[int, typer.Option(help="The same seed gives the same events.")] = 0,
) -> None:
    """Measure the initial load and the cost of changes on the running stack."""
    for name, value in dotenv_values(ENDPOINTS, interpolate=False).items():
        os.environ.setdefault(name, value or "")
    if missing := [name for name in SERVICES if not os.environ.get(name)]:
        raise SystemExit(f"nothing says where the stack is ({', '.join(missing)} not set): run `make up` first")
    sizes = [int(size) for size in rows.replace("_", "").split(",") if size.strip()]
    console = Console()
    stores = load_settings(ObjectStoreSettings)
    run = f"bench-{uuid.uuid4().hex[:8]}"
    root = f"{stores.root_for(None)}/{run}"
    result: dict[str, Any] = {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": {"cpus": os.cpu_count(), "platform": platform.platform(), "python": platform.python_version()},
        "seed": seed,
    }
    try:
        with _progress(console) as progress:
            if events:
                load = _load(progress, run, root, stores, events, seed)
                result["initial_load"] = asdict(load) | {"events_per_s": load.events_per_s}
                progress.console.print(_load_lines(load), soft_wrap=True, highlight=False)
            if documents:
                mixed = list(_mixed_types(progress, documents, seed))
                result["mixed_types"] = [asdict(cost) | {"ratio": cost.ratio} for cost in mixed]
                progress.console.print(_mixed_lines(mixed), soft_wrap=True, highlight=False)
                rules = _rules(progress, documents, seed)
                result["rules"] = asdict(rules) | {"share": rules.share}
                progress.console.print(_rules_lines(rules), soft_wrap=True, highlight=False)
                reconciling = _reconciling(progress, documents, seed)
                result["reconciliation"] = asdict(reconciling)
                progress.console.print(_reconciling_lines(reconciling), soft_wrap=True, highlight=False)
            costs = _changes(progress, root, stores, sizes, batches, seed)
        if costs:
            result["changes"] = [asdict(cost) | {"merge_ratio": cost.merge_ratio} for cost in costs]
            console.print(_changes_table(costs))
    except (CdcError, KafkaException, OSError) as error:
        raise SystemExit(f"error: {error}") from error
    finally:
        delete_everything(root, stores)
    result["peak_rss_mb"] = round(peak_rss_mb())
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{time.strftime('%Y%m%d-%H%M%S')}.json"
    path.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    console.print(f"figures: {path}")


def _load(progress: Progress, run: str, root: str, stores: ObjectStoreSettings, events: int, seed: int) -> CostOfLoad:
    bench = LoadBench(run, root, load_settings(KafkaSettings), stores, os.environ["WRITER_URL"])
    try:
        filling = progress.add_task("filling the topic", total=None)
        bench.fill(events, seed)
        progress.remove_task(filling)
        loading = progress.add_task("initial load", total=events)
        cost = bench.measure(events, lambda done: progress.update(loading, completed=done))
        progress.remove_task(loading)
        return cost
    finally:
        bench.remove()


def _changes(
    progress: Progress, root: str, stores: ObjectStoreSettings, sizes: list[int], batches: int, seed: int
) -> list[CostOfChanges]:
    costs: list[CostOfChanges] = []
    with tempfile.TemporaryDirectory(prefix="cdc-bench-") as cache:
        task = progress.add_task("filling two tables a size, then changing them", total=sum(sizes))
        for step in measure_sizes(root, stores, Path(cache), sizes, batches, seed):
            if isinstance(step, CostOfChanges):
                costs.append(step)
            else:
                progress.update(task, completed=sum(cost.rows for cost in costs) + step)
    return costs


def _mixed_types(progress: Progress, documents: int, seed: int) -> Iterator[CostOfMixedTypes]:
    task = progress.add_task("decoding mixed types", total=None)
    yield from measure_mixed_types(documents, seed)
    progress.remove_task(task)


def _mixed_lines(costs: list[CostOfMixedTypes]) -> str:
    lines = [f"Decoding {costs[0].documents:,} documents, one integer field mixed with {len(OTHER_TYPES)} other types"]
    lines += [
        f"  {cost.odd_share:.0%} of its values odd: {cost.mixed_per_s:,.0f} documents/CPU s,"
        f" {cost.plain_per_s:,.0f} without ({cost.ratio:.2f}×); {cost.walked_rows:,} walked whole"
        for cost in costs
    ]
    return "\n".join(lines) + "\n"


def _rules(progress: Progress, documents: int, seed: int) -> CostOfRules:
    task = progress.add_task("transforming", total=None)
    cost = measure_rules(documents, seed)
    progress.remove_task(task)
    return cost


def _rules_lines(cost: CostOfRules) -> str:
    return (
        f"Five transformation rules, two of them masks, for {cost.documents:,} documents\n"
        f"  {cost.transformed_per_s:,.0f} documents/CPU s, {cost.decoded_per_s:,.0f} decoded:"
        f" rules take {cost.share:.2f}× of decoding\n"
    )


def _reconciling(progress: Progress, documents: int, seed: int) -> CostOfReconciling:
    task = progress.add_task("hashing documents and rows", total=None)
    cost = measure_reconciling(documents, seed)
    progress.remove_task(task)
    return cost


def _reconciling_lines(cost: CostOfReconciling) -> str:
    return (
        f"Reconciliation of {cost.documents:,} documents with their rows\n"
        f"  documents to digests: {cost.source_per_s:,.0f}/CPU s, {cost.source_with_rules_per_s:,.0f} with rules"
        f" (decoding by text alone: {cost.by_text_per_s:,.0f})\n"
        f"  rows to digests: {cost.sink_per_s:,.0f}/CPU s; sampled keys by the second way: {cost.witness_per_s:,.0f}\n"
    )


def _load_lines(load: CostOfLoad) -> str:
    return (
        "Initial load: topic → delta-writer → Delta on S3\n"
        f"  {load.events:,} events in {load.wall_s:.1f} s and {load.commits} commits:"
        f" {load.events_per_s:,.0f} events/s with the start, {load.steady_events_per_s:,.0f} events/s once it runs\n"
        f"  writer: {load.writer_cpu_s:.2f} CPU s ({load.cpu_s_per_100k:.2f} per 100,000 events),"
        f" {load.writer_rss_mb:,.0f} MB resident\n"
    )


def _changes_table(costs: list[CostOfChanges]) -> Table:
    ours, merge = (mode.mode for mode in MODES)
    title = f"{CHANGES_A_BATCH:,} mixed changes (60 % update, 20 % insert, 20 % delete): CPU s, medians"
    table = Table(title=title, title_justify="left")
    for column in (
        "rows",
        "decode",
        "commit, vectors",
        "commit, MERGE",
        "total, vectors",
        "total, MERGE",
        "MERGE / vectors",
    ):
        table.add_column(column, justify="right")
    for cost in costs:
        table.add_row(
            f"{cost.rows:,}",
            f"{cost.decode.cpu_s:.3f}",
            f"{cost.commit[ours].cpu_s:.3f}",
            f"{cost.commit[merge].cpu_s:.3f}",
            f"{cost.cpu_s(ours):.3f}",
            f"{cost.cpu_s(merge):.3f}",
            f"{cost.merge_ratio:.1f}×",
        )
    if len(costs) > 1:
        growth = costs[-1].cpu_s(ours) / costs[0].cpu_s(ours)
        table.caption = f"from {costs[0].rows:,} to {costs[-1].rows:,} rows ours grows {growth:.2f}×"
    return table


def _progress(console: Console) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, console=console, transient=True)


if __name__ == "__main__":
    typer.run(main)
