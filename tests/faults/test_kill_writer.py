"""SIGKILL of the writer at random moments under load, on the real Kafka and store: equal to the model each time.

`test_random_kills` and `test_crash_points` do the same to the pipeline alone, many times as often.
"""

from __future__ import annotations

import random
import re
import shutil
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from hot_key_load import HotKeyLoad
from pinned_table import check_offset_chain
from tcp_proxy import TcpProxy, is_log_entry
from topic_pipeline import TopicPipeline
from waiting import wait_until
from writer_process import WriterProcess

pytestmark = pytest.mark.faults

KILLS = 20
CHANGES_PER_S = 300
BATCH_S = 0.1
STARTUP_S = 3.0
"""A writer killed within this time after its start may not have committed yet."""
RUNNING_S = 0.8
PROGRESS_TIMEOUT_S = 60.0
MOMENTS = ("starting", "running", "running", "entry on its way", "entry written, answer lost")
CACHES = ("kept", "kept", "deleted", "truncated", "old")


@pytest.mark.timeout(600)
def test_table_equals_the_model_after_every_sigkill(
    new_topic_pipeline: Callable[..., TopicPipeline], rng: random.Random, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """Attacks I1, I2, I3, I5, I7."""
    print(f"seed {request.config.getoption('--hypothesis-seed')}")
    pipeline = new_topic_pipeline(start=False, partitions=2, max_seconds=BATCH_S)
    pipeline.items.make_topic()
    pipeline.publish()
    load = HotKeyLoad(pipeline.items, rng)
    moments = [MOMENTS[n % len(MOMENTS)] for n in range(KILLS)]
    rng.shuffle(moments)
    versions: list[int] = []
    with TcpProxy(pipeline.stack.s3_endpoint) as proxy:
        killing = _Killing(pipeline, proxy, rng, tmp_path / "old-cache")
        killing.keep_a_cache(load)
        with load.running(CHANGES_PER_S):
            for moment in moments:
                killing.damage_cache(rng.choice(CACHES))
                killing.start()
                killing.kill(moment)
                versions.append(load.check_where_it_stands().version)
        killing.start()
        load.await_equal(PROGRESS_TIMEOUT_S)
    commits = check_offset_chain(pipeline.items.url, pipeline.stack.object_store)
    print(f"{Counter(moments)}, caches {killing.caches}: {commits} commits, versions after each kill {versions}")
    assert len(set(versions)) > KILLS / 2, "the load hardly moved the table between kills"


@pytest.mark.parametrize(
    ("written_last", "arrives"),
    [(r"\d{20}\.checkpoint.*\.parquet", False), ("_last_checkpoint", True)],
    ids=["its file is lost", "its pointer comes late"],
)
def test_a_writer_killed_over_a_checkpoint_goes_on(
    new_topic_pipeline: Callable[..., TopicPipeline], rng: random.Random, written_last: str, arrives: bool
) -> None:
    """Attacks I1: a checkpoint is written beside the stream; half of one must neither be read nor be in the way."""
    pipeline = new_topic_pipeline(start=False, max_seconds=BATCH_S)
    load = HotKeyLoad(pipeline.items, rng)
    with TcpProxy(pipeline.stack.s3_endpoint) as proxy:
        environment = {"S3_ENDPOINT": proxy.url, "WRITER_INSTANCE_ID": "killed"}
        pipeline.start(environment)
        held = proxy.hold(lambda method, path: method == "PUT" and bool(re.search(f"_delta_log/{written_last}", path)))
        with load.running(CHANGES_PER_S):
            assert held.happened.wait(PROGRESS_TIMEOUT_S), "no checkpoint was written"
            pipeline.writer.kill()
            if arrives:
                held.release()
            killed_at = load.check_where_it_stands().version
            pipeline.start_writer(environment)
            wait_until(
                lambda: load.check_where_it_stands().version > killed_at, PROGRESS_TIMEOUT_S, "the new writer commits"
            )
        load.await_equal(PROGRESS_TIMEOUT_S)
    check_offset_chain(pipeline.items.url, pipeline.stack.object_store)


class _Killing:
    """Starts and kills the pipeline's writers, all of which reach the store through `proxy`."""

    def __init__(self, pipeline: TopicPipeline, proxy: TcpProxy, rng: random.Random, old_cache: Path) -> None:
        self.caches: Counter[str] = Counter()
        self._pipeline = pipeline
        self._proxy = proxy
        self._rng = rng
        self._old_cache = old_cache

    @property
    def _cache(self) -> Path:
        return self._pipeline.writer.cache_dir

    def start(self) -> WriterProcess:
        # Static membership: else Kafka would let each new writer wait until the killed one's session has ended.
        environment = {"S3_ENDPOINT": self._proxy.url, "WRITER_INSTANCE_ID": "killed"}
        return self._pipeline.start_writer(environment, ready=False)

    def keep_a_cache(self, load: HotKeyLoad) -> None:
        """Stop a writer cleanly once, so that there is a key index on disk, and keep a copy of it."""
        self.start()
        load.send(500)
        load.await_equal(PROGRESS_TIMEOUT_S)
        self._pipeline.writer.stop()
        assert list(self._cache.rglob("*.run")), "a clean stop keeps the key index"
        shutil.copytree(self._cache, self._old_cache)

    def damage_cache(self, how: str) -> None:
        self.caches[how] += 1
        if how in ("deleted", "old"):
            shutil.rmtree(self._cache, ignore_errors=True)  # a writer killed early has made none
        if how == "old":
            shutil.copytree(self._old_cache, self._cache)
        if how == "truncated":
            for path in self._cache.rglob("*"):
                if path.is_file():
                    with path.open("r+b") as file:
                        file.truncate(self._rng.randint(0, path.stat().st_size))

    def kill(self, moment: str) -> None:
        writer = self._pipeline.writer
        if moment == "starting":
            time.sleep(self._rng.uniform(0.0, STARTUP_S))
            writer.kill()
            return
        wait_until(lambda: _commits(writer) > 0, PROGRESS_TIMEOUT_S, "the writer commits")
        time.sleep(self._rng.uniform(0.0, RUNNING_S))
        if moment == "running":
            writer.kill()
        elif moment == "entry on its way":
            held = self._proxy.hold(is_log_entry)
            assert held.happened.wait(PROGRESS_TIMEOUT_S)
            writer.kill()
            held.release()  # it comes to the store after its writer's death, at some time
        else:
            lost = self._proxy.lose_answer(is_log_entry)
            assert lost.happened.wait(PROGRESS_TIMEOUT_S)
            writer.kill()


def _commits(writer: WriterProcess) -> int:
    writer.check_alive()
    return sum(event.get("event") == "batch committed" for event in writer.log_events())
