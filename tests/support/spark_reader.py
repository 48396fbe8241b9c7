"""Delta tables as Spark and Delta Lake's own reader see them.

Spark's jars come from Maven (`config/local/spark-pom.xml`) into the user's cache, once, like those of the local stack;
a JVM of the test's own is spoken to through py4j, so that no PySpark is needed.
"""

from __future__ import annotations

import fcntl
import hashlib
import shutil
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from py4j.java_gateway import GatewayParameters, JavaGateway, launch_gateway  # type: ignore[import-untyped]

from local_stack.layout import user_cache
from local_stack.prerequisites import find_java

ROOT = Path(__file__).parents[2]
POM = ROOT / "config" / "local" / "spark-pom.xml"
DOWNLOAD_TIMEOUT_S = 900
# What Spark's own launcher opens to it on Java 17.
OPENED_PACKAGES = (
    "java.base/java.lang",
    "java.base/java.lang.invoke",
    "java.base/java.lang.reflect",
    "java.base/java.io",
    "java.base/java.net",
    "java.base/java.nio",
    "java.base/java.util",
    "java.base/java.util.concurrent",
    "java.base/java.util.concurrent.atomic",
    "java.base/sun.nio.ch",
    "java.base/sun.nio.cs",
    "java.base/sun.security.action",
    "java.base/sun.util.calendar",
)


class SparkNotToBeHad(Exception):
    """Java, Maven or Spark's jars are missing here, and why."""


def spark_jars() -> Path:
    """The directory with Spark's jars, downloaded when it is missing. Raises `SparkNotToBeHad`."""
    digest = hashlib.sha256(POM.read_bytes()).hexdigest()[:16]
    directory = user_cache(ROOT) / "jars" / f"spark-{digest}"
    directory.parent.mkdir(parents=True, exist_ok=True)
    with (directory.parent / "spark-download.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not directory.exists():
            fresh = directory.with_name(f"{directory.name}.new")
            shutil.rmtree(fresh, ignore_errors=True)
            fresh.mkdir()
            shutil.copyfile(POM, fresh / "pom.xml")
            _run_maven(fresh)
            fresh.rename(directory)
    return directory / "libs"


def _run_maven(directory: Path) -> None:
    maven = shutil.which("mvn")
    if maven is None:
        raise SparkNotToBeHad("Maven is not installed")
    command = [maven, "-B", "-q", "--strict-checksums", "package"]
    try:
        done = subprocess.run(command, cwd=directory, capture_output=True, text=True, timeout=DOWNLOAD_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        raise SparkNotToBeHad(f"Spark's jars were not downloaded within {DOWNLOAD_TIMEOUT_S} s") from None
    if done.returncode:
        errors = [line for line in done.stdout.splitlines() if line.startswith("[ERROR]")]
        raise SparkNotToBeHad(f"Maven could not bring Spark's jars: {' '.join(errors[:3])}")


@contextmanager
def spark_session(directory: Path) -> Iterator[Any]:
    """A local Spark session with Delta Lake, in a JVM that ends with the block; `directory` is for what it writes."""
    java = find_java()
    if java is None:
        raise SparkNotToBeHad("there is no Java runtime, 17 or later")
    jars = spark_jars()
    opened = [f"--add-opens={package}=ALL-UNNAMED" for package in OPENED_PACKAGES]
    (py4j_jar,) = jars.glob("py4j-*.jar")
    port = launch_gateway(
        jarpath=str(py4j_jar),
        classpath=f"{jars}/*",
        javaopts=["-Xmx1g", f"-Dderby.system.home={directory}", "-Dio.netty.tryReflectionSetAccessible=true", *opened],
        java_path=str(java),
        cwd=str(directory),
        die_on_exit=True,
    )
    gateway = JavaGateway(gateway_parameters=GatewayParameters(port=port, auto_convert=True))
    try:
        yield (
            gateway.jvm.org.apache.spark.sql.SparkSession.builder()
            .master("local[1]")
            .config("spark.ui.enabled", "false")
            .config("spark.sql.session.timeZone", "UTC")
            .config("spark.sql.shuffle.partitions", "1")
            .config("spark.databricks.delta.snapshotPartitions", "1")
            .config("spark.sql.parquet.outputTimestampType", "TIMESTAMP_MICROS")
            .config("spark.sql.warehouse.dir", str(directory / "warehouse"))
            .config("spark.sql.extensions", "io.delta.sql.DeltaSparkSessionExtension")
            .config("spark.sql.catalog.spark_catalog", "org.apache.spark.sql.delta.catalog.DeltaCatalog")
            .getOrCreate()
        )
    finally:
        gateway.shutdown()


def read_with_spark(spark: Any, table: Path, scratch: Path, version: int | None = None) -> pa.Table:
    """Every row of a table on a local path, as Spark reads it, at its newest or an older version."""
    travel = "" if version is None else f" VERSION AS OF {version}"
    return query_with_spark(spark, f"SELECT * FROM delta.`{table}`{travel}", scratch)


def query_with_spark(spark: Any, sql: str, scratch: Path) -> pa.Table:
    """What Spark answers; it goes through Parquet files in a directory of their own in `scratch`."""
    target = scratch / uuid.uuid4().hex
    spark.sql(sql).coalesce(1).write().parquet(str(target))
    return pq.read_table(target)
