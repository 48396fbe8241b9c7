"""How good the data is: what was rejected and by which rule, what did not fit its column, what rules changed.

A label `field` is a JSON Pointer as rules and `_cdc_rescued` have it. Documents can have any number of fields, and each
value of a label is a time series for as long as the pipeline runs: beyond `MAX_FIELDS` of a collection the rest is
`other`.
"""

from collections.abc import Mapping, Sequence
from typing import Final

from prometheus_client import CollectorRegistry, Counter

from cdc_shared.dead_letters.rejection import Rejection
from cdc_shared.models.data_quality import OnFailure

MAX_FIELDS: Final = 100
OTHER_FIELDS: Final = "other"
_TABLE: Final = ("pipeline", "database", "collection")

TableLabels = tuple[str, str, str]
"""Pipeline, database and collection."""


class DataQualityMetrics:
    """All data-quality metrics of one writer process, registered on `registry`. To be fed from any thread."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._fields: dict[TableLabels, set[str]] = {}
        self.rejections = Counter(
            "cdc_rejections_total",
            "Records that were not applied, by reason code and by what became of them (dlq, skip, fail).",
            ("pipeline", "topic", "code", "policy"),
            registry=registry,
        )
        self.validation_failures = Counter(
            "cdc_validation_failures_total",
            "Documents that did not pass a validation rule, by rule.",
            ("pipeline", "topic", "rule"),
            registry=registry,
        )
        self.filtered = Counter(
            "cdc_filtered_documents_total",
            "Documents that did not match a filter and so have no row, by rule.",
            ("pipeline", "topic", "rule"),
            registry=registry,
        )
        self.field_conflicts = Counter(
            "cdc_field_conflicts_total",
            "Values that did not fit their field's column and were kept in _cdc_rescued, by field and kind of value.",
            (*_TABLE, "field", "kind"),
            registry=registry,
        )
        self.converted_values = Counter(
            "cdc_converted_values_total", "Values that a convert rule changed.", (*_TABLE, "field"), registry=registry
        )
        self.masked_values = Counter(
            "cdc_masked_values_total",
            "Values that a mask changed, by kind of mask.",
            (*_TABLE, "field", "mask"),
            registry=registry,
        )
        self.source_time_setbacks = Counter(
            "cdc_source_time_setbacks_total",
            "Batches of a partition in which the source's time went back by more than a minute.",
            ("pipeline", "topic", "partition"),
            registry=registry,
        )

    def rejected(self, pipeline: str, topic: str, rejection: Rejection, policy: OnFailure) -> None:
        """A record was rejected, and `policy` says what becomes of it."""
        self.rejections.labels(pipeline, topic, rejection.code, policy).inc()
        if rejection.rule is not None:
            self.validation_failures.labels(pipeline, topic, rejection.rule).inc()

    def conflicted(self, table: TableLabels, conflicts: Mapping[str, Mapping[str, int]]) -> None:
        """Values of these fields did not fit: field → kind of value → how many (`DecodeStats.conflicts`)."""
        for field, kinds in conflicts.items():
            label = self._field_label(table, field)
            for kind, count in kinds.items():
                self.field_conflicts.labels(*table, label, kind).inc(count)

    def transformed(self, table: TableLabels, counts: Mapping[tuple[str, str], int]) -> None:
        """Rules changed values: (kind of rule, field) → how many (`Transformed.counts`)."""
        for (rule, field), count in counts.items():
            label = self._field_label(table, field)
            if rule == "convert":
                self.converted_values.labels(*table, label).inc(count)
            else:
                self.masked_values.labels(*table, label, rule).inc(count)

    def set_back(self, pipeline: str, topic: str, partitions: Sequence[int]) -> None:
        """The source's time went back in these partitions."""
        for partition in partitions:
            self.source_time_setbacks.labels(pipeline, topic, partition).inc()

    def forget_pipeline(self, pipeline: str) -> None:
        """Drop every series of a deleted pipeline."""
        for metric in vars(self).values():
            if isinstance(metric, Counter):
                metric.remove_by_labels({"pipeline": pipeline})
        for table in [each for each in self._fields if each[0] == pipeline]:
            del self._fields[table]

    def _field_label(self, table: TableLabels, field: str) -> str:
        known = self._fields.setdefault(table, set())
        if field not in known and len(known) >= MAX_FIELDS:
            return OTHER_FIELDS
        known.add(field)
        return field
