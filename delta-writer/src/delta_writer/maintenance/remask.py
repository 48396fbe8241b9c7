"""Re-masking: rows that were written before a mask was added get it too.

A row says in `_cdc_rules_version` which version of the pipeline's rules made it. Masks that this version lacked are
applied to the row as it is stored: to its columns and to what was rescued of it. A value that an earlier version masked
is left alone: what is masked once cannot be masked otherwise. Only where the two versions differ in nothing but masks;
else the row would be none that either version makes, and the table has to be filled anew.
"""

import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, get_args

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from obstore.store import ObjectStore

from cdc_shared.delta.actions import AddFile, Metadata
from cdc_shared.delta.schema_history import SchemaCause, SchemaOperation, read_schema_history
from cdc_shared.delta.table_metadata import MASKED, masked_by, schema_of, with_schema
from cdc_shared.documents import DocumentSchema
from cdc_shared.documents.canonical import document_of_row
from cdc_shared.documents.decoder import Decoded
from cdc_shared.documents.extended_json import dump
from cdc_shared.documents.fitting import fit_exactly
from cdc_shared.errors import Fatal
from cdc_shared.metrics.prometheus_metrics import MaintenanceTask
from cdc_shared.models import data_quality as q
from cdc_shared.rules.compiled import Rules
from cdc_shared.rules.paths import Tokens, begins_with, names_of, tokens_of, touch
from cdc_shared.rules.source_schema import MaskedField, masked_field
from cdc_shared.storage.range_file import RangeFile
from delta_writer.maintenance.document_rows import DocumentRows
from delta_writer.writer.deletion_vectors import DeletionVectors
from delta_writer.writer.file_changes import Overtaken

REMASK: Final = "cdc.remask"
"""The table property that asks for the masks of this version of the rules in all rows."""
PURGE: Final = "cdc.purge"
"""The table property that names the version before which all are still to be deleted; empty when that is done."""
RULES_VERSION: Final = "_cdc_rules_version"
_MASK_RULES: Final = get_args(q.MaskRule)


class NotMaskable(Fatal):
    """Rows cannot get the masks as they are stored. Says why, and the remedy."""


@dataclass(frozen=True, slots=True)
class MissingMasks:
    """Which masks rows lack of `target`, by the version of the rules that made them; none where they lack none.

    A version that is not named makes rows that cannot get the masks.
    """

    target: q.QualitySpec
    by_version: Mapping[int, Sequence[q.TransformationRule]]

    @property
    def paths(self) -> list[str]:
        """The fields, as the table has them."""
        rules = (rule for each in self.by_version.values() for rule in each)
        return sorted({rule.path for rule in rules if isinstance(rule, _MASK_RULES)})


def missing_masks(
    collection: str, target: q.QualitySpec, versions: Mapping[int, q.QualitySpec], made_by: Collection[int]
) -> MissingMasks:
    """Say which masks of `target` rows lack that were made by one of the versions; 0 is no rules. `made_by` are those
    that did make rows.

    Raises:
        NotMaskable: a row cannot get the masks, or its version is not known.
    """
    by_version: dict[int, Sequence[q.TransformationRule]] = {}
    new = _concerned(target, collection)
    for version in sorted({0, *versions, *made_by}):
        if version >= target.version:
            continue
        try:
            by_version[version] = _missing(_concerned(_known(versions, version), collection), new, version)
        except NotMaskable:
            if version in made_by:
                raise
    return MissingMasks(target, by_version)


def plain_fields(
    collection: str, target: q.QualitySpec, versions: Mapping[int, q.QualitySpec], made_by: Iterable[int]
) -> list[str]:
    """Return the paths of `target`'s masks, as its rules have them, that one of these versions lacked."""
    new = _masks(_concerned(target, collection))
    fields = set()
    for version in made_by:
        if version < target.version:
            old = versions.get(version, q.QualitySpec())
            masked = [field for _, field in _masks(_concerned(old, collection))]
            fields |= {field.path for _, field in new if not _is_masked(field, masked)}
    return sorted(fields)


def plain_in_table(
    store: ObjectStore,
    metadata: Metadata,
    collection: str,
    target: q.QualitySpec,
    versions: Mapping[int, q.QualitySpec],
    made_by: Iterable[int],
) -> list[str]:
    """Return the paths of `target`'s masks that rows, or older versions of the table, may show plain.

    `made_by` are the versions of the rules that made its rows. Lets the store's errors through.
    """
    first = masked_by(metadata)
    if first >= target.version:
        return []
    if not first:
        history = read_schema_history(store)
        first = history[0].rules_version if history and history[0].previous is None else 0
    older = {first, *made_by, *(version for version in versions if first < version < target.version)}
    return plain_fields(collection, target, versions, older)


def made_by(store: ObjectStore, files: Iterable[AddFile]) -> set[int]:
    """Return the versions of the rules that made the live rows of these files. 0 where a row names none.

    Reads one column of those files whose statistics do not tell. Lets the store's errors through.
    """
    vectors = DeletionVectors(store, time.time)
    found: set[int] = set()
    for file in files:
        told = _told_by_statistics(file)
        if told is None or not told <= found:
            found |= told if told is not None and file.deletion_vector is None else _read_versions(store, file, vectors)
    return found


def _told_by_statistics(file: AddFile) -> set[int] | None:
    """Return the versions that made the file's rows, live or not; None when its statistics do not say exactly."""
    stats = msgspec.json.decode(file.stats or "{}")
    nulls = stats.get("nullCount", {}).get(RULES_VERSION)
    least, most = (stats.get(name, {}).get(RULES_VERSION) for name in ("minValues", "maxValues"))
    if nulls is None or least != most or (least is None and nulls != stats.get("numRecords")):
        return None
    return ({0} if nulls else set()) | ({least} if least is not None else set())


def _read_versions(store: ObjectStore, file: AddFile, vectors: DeletionVectors) -> set[int]:
    dead = np.frombuffer(vectors.of(file).to_array(), np.uint32)
    with pq.ParquetFile(pa.PythonFile(RangeFile(store, file.path, file.size), mode="r")) as parquet:
        column: Any = parquet.read(columns=[RULES_VERSION]).column(RULES_VERSION)
    return set(np.unique(np.delete(column.fill_null(0).to_numpy(), dead)).tolist())


class Remasking:
    """A `ColumnChange`: these masks, and all older versions are to be deleted then."""

    task = MaintenanceTask.REMASK
    operation = "CDC REMASK"

    def __init__(self, missing: MissingMasks, collection: str, secrets: Callable[[str], bytes]) -> None:
        self._missing = missing
        self._version = missing.target.version
        self._rules = {
            version: _compiled(self._version, masks, collection, secrets)
            for version, masks in missing.by_version.items()
        }

    def __str__(self) -> str:
        return f"masking of {', '.join(self._missing.paths) or 'nothing'} (rules version {self._version})"

    def metadata(self, now: Metadata, version: int) -> Metadata:
        """See `ColumnChange`."""
        if now.configuration.get(REMASK) != str(self._version):
            raise Overtaken(f"rules version {self._version} is no longer asked for")
        changed = with_schema(now, self._target(schema_of(now)))
        own = {REMASK: "", MASKED: str(self._version), PURGE: str(version)}
        return msgspec.structs.replace(changed, configuration={**changed.configuration, **own})

    def cause(self, commit_id: str, at_ms: int) -> SchemaCause:
        """See `ColumnChange`."""
        return SchemaCause(SchemaOperation.MASKED, commit_id, at_ms, self._version)

    def conversion(self, now: Metadata) -> "MaskedRows":
        """See `ColumnChange`."""
        return MaskedRows(now, self._target(schema_of(now)), self._rules, self._version)

    def _target(self, schema: DocumentSchema) -> DocumentSchema:
        """Return the schema with the types that masks give."""
        for rules in self._rules.values():
            empty = pa.schema(schema.storage).empty_table()
            masked = rules.transform(Decoded(schema, empty, pa.array([], pa.string())), [])
            schema = masked.decoded.schema
        return schema


class MaskedRows:
    """A `Conversion`: the rows of each version with the masks that they lack. Those of the new version stay."""

    def __init__(self, now: Metadata, target: DocumentSchema, rules: Mapping[int, Rules], version: int) -> None:
        self._target = target
        self._rules = rules
        self._version = version
        self._rows = DocumentRows(now, target)
        self.schema = self._rows.schema

    def convert(self, rows: pa.Table) -> pa.Table:
        """See `Conversion`."""
        made_by: Any = rows.column(RULES_VERSION).combine_chunks().fill_null(0).to_numpy(zero_copy_only=False)
        parts, places = [], []
        for version in np.unique(made_by).tolist():
            at = np.flatnonzero(made_by == version)
            parts.append(self._masked(rows.take(at), version))
            places.append(at)
        if not parts:
            return self.schema.empty_table()
        return pa.concat_tables(parts).take(np.argsort(np.concatenate(places), kind="stable"))

    def _masked(self, rows: pa.Table, version: int) -> pa.Table:
        decoded = self._rows.documents(rows)
        if version < self._version and version not in self._rules:
            raise Overtaken(f"rows of version {version} of the rules have come that cannot be masked as they are")
        if version in self._rules:
            decoded = self._rules[version].transform(decoded, _Texts(decoded)).decoded
        fitted = fit_exactly(decoded, self._target)
        if version >= self._version:
            return self._rows.with_documents(rows, fitted)
        versions = pa.array(np.full(len(rows), self._version, np.int32))
        return self._rows.with_documents(rows, fitted, {RULES_VERSION: versions})


class _Texts(Sequence[str]):
    """The documents of rows as texts, made when one is asked for: of rows whose rescued values a mask touches."""

    def __init__(self, decoded: Decoded) -> None:
        self._decoded = decoded

    def __len__(self) -> int:
        return len(self._decoded.rescued)

    def __getitem__(self, row: Any) -> Any:
        values = self._decoded.table.slice(row, 1).to_pylist()[0]
        return dump(document_of_row(values, self._decoded.schema, self._decoded.rescued[row].as_py()))


def _compiled(
    version: int, masks: Sequence[q.TransformationRule], collection: str, secrets: Callable[[str], bytes]
) -> Rules:
    return Rules.compile(q.QualitySpec(version=version, transformation=tuple(masks)), collection, secrets)


def _known(versions: Mapping[int, q.QualitySpec], version: int) -> q.QualitySpec:
    if version and version not in versions:
        raise NotMaskable(
            f"rows were made by version {version} of the rules, which cdc.rules no longer has: run `delta-writer "
            "resync` for the collection, which brings every row under the rules in force, and then remask"
        )
    return versions[version] if version else q.QualitySpec()


def _concerned(quality: q.QualitySpec, collection: str) -> list[q.TransformationRule]:
    return [rule for rule in quality.transformation if rule.concerns(collection)]


def _missing(
    old: Sequence[q.TransformationRule], new: Sequence[q.TransformationRule], version: int
) -> list[q.TransformationRule]:
    masked = [field for _, field in _masks(old)]
    lacking = [(rule, field) for rule, field in _masks(new) if not _is_masked(field, masked)]
    if not lacking:
        return []
    others = _without_masks(new)
    if _without_masks(old) != others:
        raise NotMaskable(
            f"rows made by version {version} of the rules cannot be masked as they are, because other rules than masks "
            "have changed since: run `delta-writer resync` for the collection, which brings every row under the rules "
            "in force, and then remask, which deletes what is older"
        )
    return [_applied(rule, field, others) for rule, field in lacking]


def _applied(rule: q.TransformationRule, field: MaskedField, others: Collection[q.TransformationRule]) -> Any:
    """Return a mask as a rule about the table's rows."""
    names = names_of(tokens_of(field.path))
    if names == ("_id",):
        raise NotMaskable(
            "a mask of /_id changes every row's key: run `delta-writer resync` for the collection, which makes all "
            "rows anew and sweeps those of the old keys, and then remask, which deletes what is older"
        )
    for other in others:
        if isinstance(other, q.Convert | q.Constant | q.Flatten) and any(
            touch(names_of(tokens_of(path)), names_of(tokens_of(other.path))) for path in (field.path, *field.sources)
        ):
            raise NotMaskable(
                f"the mask of {field.path} cannot be applied to stored rows, because another rule ({other.rule} of "
                f"{other.path}) changes the field too: run `delta-writer resync` for the collection, and then remask"
            )
    if field.table_path is None:
        raise NotMaskable(f"{field.path} is masked and then left out: run `delta-writer resync` for the collection")
    return rule.model_copy(update={"path": field.table_path})


def _masks(rules: Sequence[q.TransformationRule]) -> list[tuple[q.TransformationRule, MaskedField]]:
    return [(rule, masked_field(rules, i)) for i, rule in enumerate(rules) if isinstance(rule, _MASK_RULES)]


def _is_masked(field: MaskedField, masked: Sequence[MaskedField]) -> bool:
    return any(set(field.sources) <= set(other.sources) or _is_within(field, other) for other in masked)


def _is_within(field: MaskedField, masked: MaskedField) -> bool:
    """Say whether a field lies in one that is masked as a whole: the mask for it would be for what that mask left. Only
    where one field was masked: of an object that a flatten rule took apart, a mask is for one member.
    """
    if len(masked.sources) > 1:
        return False
    whole = tokens_of(masked.sources[0])

    def is_within(tokens: Tokens) -> bool:
        is_member = names_of(tokens) != names_of(whole) and begins_with(names_of(tokens), names_of(whole))
        return is_member or begins_with(tokens, whole)

    return all(is_within(tokens_of(source)) for source in field.sources)


def _without_masks(rules: Sequence[q.TransformationRule]) -> list[q.TransformationRule]:
    return [rule for rule in rules if not isinstance(rule, _MASK_RULES)]
