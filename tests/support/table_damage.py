"""Damage to a table, done on purpose by another program (delta-rs): rows lost, added, altered or doubled.

The pipeline's writer must not run meanwhile: it stops at such commits until they are accepted.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, cast

import pyarrow as pa
from bson import json_util
from delta_reading import read_with_query_builder
from deltalake import DeltaTable, write_deltalake

from cdc_shared.documents import DocumentSchema, decode, from_delta_schema, key_text
from cdc_shared.settings import ObjectStoreSettings

_KEY: Final = "_cdc_key"
_RESCUED: Final = "_cdc_rescued"
_EXACT: Final = json_util.JSONOptions(json_mode=json_util.JSONMode.CANONICAL)


class Harm(StrEnum):
    """What is done to a row."""

    MISSING = "missing"
    EXTRA = "extra"
    TEXT = "text"
    """A top-level text is another one."""
    NESTED = "nested"
    """A text within a sub-document is another one."""
    TYPE = "type"
    """A number is a text that reads the same."""
    MASKED = "masked"
    """A masked text is another one."""
    DUPLICATED = "duplicated"
    """There is a second row like it."""
    DUPLICATED_ALTERED = "duplicated_altered"
    """There is a second row of its key, with another text."""
    REORDERED = "reordered"
    """The fields of an object kept as JSON have another order: no damage, the document is the same."""


HARMLESS: Final = frozenset({Harm.REORDERED})


@dataclass(frozen=True, slots=True)
class DamagedFields:
    """Which columns are altered. Every row has them, typed as said."""

    text: str = "text"
    nested: tuple[str, str] = ("sub", "b")
    number: str = "n"
    masked: str = "email"
    json: str = "mixed"
    """A JSON array, whose last item is an object of several fields."""

    def pointer(self, harm: Harm) -> str | None:
        """JSON Pointer of what a harm alters; None when it is no one field."""
        return {
            Harm.TEXT: f"/{self.text}",
            Harm.NESTED: "/" + "/".join(self.nested),
            Harm.TYPE: f"/{self.number}",
            Harm.MASKED: f"/{self.masked}",
        }.get(harm)


FIELDS: Final = DamagedFields()


def damage_table(
    url: str,
    stores: ObjectStoreSettings,
    rng: random.Random,
    each: Mapping[Harm, int],
    extra_ids: Sequence[Any] = (),
    fields: DamagedFields = FIELDS,
    only: Collection[str] | None = None,
) -> dict[str, Harm]:
    """Do each harm to so many rows, chosen at random over all BSON types of `_id`; one harm a row, a commit a kind.

    `only` these keys are damaged.
    `extra_ids`: the `_id`s of rows that no document has; as many as `each` says of `EXTRA`. Returns what was done to
    each `_cdc_key`.
    """
    options = stores.storage_options()
    rows = read_with_query_builder(url, stores)
    schema = _plain_schema(rows.schema)
    rows = rows.cast(schema)
    keys = cast(list[str], rows.column(_KEY).to_pylist())
    wanted = [harm for harm, count in each.items() for _ in range(count) if harm is not Harm.EXTRA]
    assert len(extra_ids) == each.get(Harm.EXTRA, 0), "an _id for each extra row"
    allowed = [place for place, key in enumerate(keys) if only is None or key in only]
    places = [allowed[at] for at in _over_all_id_types([keys[place] for place in allowed], len(wanted), rng)]
    chosen: dict[Harm, list[int]] = {}
    for harm, place in zip(wanted, places, strict=True):
        chosen.setdefault(harm, []).append(place)

    done: dict[str, Harm] = {}
    for kind, at in chosen.items():
        picked = rows.take(at)
        _COMMITS[kind](url, options, _altered(picked, kind, fields))
        done.update((keys[place], kind) for place in at)
    if extra_ids:
        copied = rows.take(rng.sample(range(len(rows)), len(extra_ids)))
        documents = from_delta_schema(DeltaTable(url, storage_options=options).schema().to_json())
        write_deltalake(url, _renamed(copied, extra_ids, documents), mode="append", storage_options=options)
        done.update((key_text(each), Harm.EXTRA) for each in extra_ids)
    return done


# -- commits ----------------------------------------------------------------------------------------------------------


def _delete(url: str, options: dict[str, str], rows: pa.Table) -> None:
    table = DeltaTable(url, storage_options=options)
    merge = table.merge(rows.select([_KEY]), f"t.{_KEY} = s.{_KEY}", source_alias="s", target_alias="t")
    assert merge.when_matched_delete().execute()["num_target_rows_deleted"] == len(rows)


def _update(url: str, options: dict[str, str], rows: pa.Table) -> None:
    table = DeltaTable(url, storage_options=options)
    merge = table.merge(rows, f"t.{_KEY} = s.{_KEY}", source_alias="s", target_alias="t")
    assert merge.when_matched_update_all().execute()["num_target_rows_updated"] == len(rows)


def _append(url: str, options: dict[str, str], rows: pa.Table) -> None:
    write_deltalake(url, rows, mode="append", storage_options=options)


_COMMITS: Final[Mapping[Harm, Callable[[str, dict[str, str], pa.Table], None]]] = {
    Harm.MISSING: _delete,
    Harm.TEXT: _update,
    Harm.NESTED: _update,
    Harm.TYPE: _update,
    Harm.MASKED: _update,
    Harm.REORDERED: _update,
    Harm.DUPLICATED: _append,
    Harm.DUPLICATED_ALTERED: _append,
}


# -- rows -------------------------------------------------------------------------------------------------------------


def _altered(rows: pa.Table, harm: Harm, fields: DamagedFields) -> pa.Table:
    if harm in (Harm.MISSING, Harm.DUPLICATED):
        return rows
    altered = rows.to_pylist()
    for row in altered:
        match harm:
            case Harm.TEXT | Harm.DUPLICATED_ALTERED:
                row[fields.text] += "!"
            case Harm.NESTED:
                outer, inner = fields.nested
                row[outer][inner] += "!"
            case Harm.TYPE:
                rescued = json.loads(row[_RESCUED] or "{}") | {f"/{fields.number}": str(row[fields.number])}
                row[fields.number], row[_RESCUED] = None, json.dumps(rescued)
            case Harm.MASKED:
                row[fields.masked] += "!"
            case Harm.REORDERED:
                items = json.loads(row[fields.json])
                items[-1] = dict(reversed(items[-1].items()))
                row[fields.json] = json.dumps(items)
    return pa.Table.from_pylist(altered, schema=rows.schema)


def _renamed(rows: pa.Table, ids: Sequence[Any], schema: DocumentSchema) -> pa.Table:
    """The rows as if their documents had other `_id`s."""
    decoded = decode([json_util.dumps({"_id": each}, json_options=_EXACT) for each in ids], schema)
    assert decoded.schema.typed() == schema, "the table has a place for these _ids"
    rescued = [
        None if text is None else text if (before := row) is None else json.dumps(json.loads(before) | json.loads(text))
        for text, row in zip(decoded.rescued.to_pylist(), rows.column(_RESCUED).to_pylist(), strict=True)
    ]
    columns = {name: rows.column(name) for name in rows.column_names} | {
        _KEY: pa.array([key_text(each) for each in ids]),
        "_id": decoded.table.column("_id"),
        _RESCUED: pa.array(rescued, pa.string()),
    }
    return pa.table(columns).cast(rows.schema)


def _over_all_id_types(keys: Sequence[str], count: int, rng: random.Random) -> list[int]:
    """So many different places in `keys`, from each type of `_id` in turn."""
    groups: dict[str, list[int]] = {}
    for place in rng.sample(range(len(keys)), len(keys)):
        groups.setdefault(_id_type(keys[place]), []).append(place)
    taken: list[int] = []
    while len(taken) < count:
        assert any(groups.values()), f"the table has fewer than {count} rows"
        taken += [group.pop() for group in groups.values() if group]
    return taken[:count]


def _id_type(key: str) -> str:
    value = json.loads(key)
    return "/".join(sorted(value)) if isinstance(value, dict) else type(value).__name__


def _plain_schema(schema: pa.Schema) -> pa.Schema:
    """The schema without string and binary views, which not every writer of Parquet takes."""
    return pa.schema([pa.field(each.name, _plain(each.type), each.nullable) for each in schema])


def _plain(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_string_view(kind) or pa.types.is_large_string(kind):
        return pa.string()
    if pa.types.is_binary_view(kind) or pa.types.is_large_binary(kind):
        return pa.binary()
    if pa.types.is_struct(kind):
        return pa.struct([pa.field(each.name, _plain(each.type), each.nullable) for each in kind])
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return pa.list_(pa.field(kind.value_field.name, _plain(kind.value_type), kind.value_field.nullable))
    return kind
