"""The chunks of a plan hold every `_id` there can be exactly once, and can be gone on with behind any document."""

from __future__ import annotations

import random
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import bson
import msgspec
import pytest
from bson import Binary, Code, DatetimeMS, Decimal128, Int64, MaxKey, MinKey, ObjectId, Timestamp
from fake_collection import AS_STORED, FakeCollection, bracket_of_value, matches, order_of

from cdc_shared.errors import Fatal
from cdc_shared.models.collection import Collection
from reconciliation.sources.chunks import ALL, Bracket, Chunk, bracket_of, chunks_between, plan_chunks

pytestmark = pytest.mark.unit

RARE = [MinKey(), None, True, False, MaxKey(), float("nan"), float("-inf"), float("inf"), Code("f()"), Timestamp(1, 2)]
ORDERS = Collection("shop", "orders")


def random_id(rng: random.Random) -> Any:
    kinds: list[Callable[[], Any]] = [
        lambda: rng.randrange(-(10**6), 10**6),
        lambda: rng.uniform(-1000, 1000),
        lambda: Int64(rng.randrange(-(2**60), 2**60)),
        lambda: Decimal128(f"{rng.randrange(10**9)}.{rng.randrange(100)}"),
        lambda: "".join(rng.choices("abÄ\U0001f600\uffff", k=rng.randrange(6))),
        lambda: {"k": rng.randrange(50), "s": rng.choice(["a", 1, None])},
        lambda: {"k": rng.choice(["a", 1.5, None]), "n": {"m": rng.randrange(50)}},
        lambda: rng.randbytes(rng.randrange(4)),
        lambda: Binary(rng.randbytes(16), 4),
        lambda: ObjectId(rng.randbytes(12)),
        lambda: DatetimeMS(rng.randrange(-(2**40), 2**40)),
        lambda: rng.choice(RARE),
    ]
    return rng.choice(kinds)()


def random_ids(rng: random.Random, count: int) -> list[Any]:
    ids = {repr(order_of(value)): value for value in (random_id(rng) for _ in range(count))}
    return sorted(ids.values(), key=order_of)


def found(chunk: Chunk, ids: list[Any], after: Any = ...) -> list[Any]:
    raw = None if after is ... else bson.encode({"_id": after, "n": 1})
    query = bson.decode(bson.encode(chunk.filter(raw)), AS_STORED)
    return [each for each in ids if matches(query, each)]


def test_every_id_is_in_exactly_one_chunk_whatever_was_sampled(rng: random.Random) -> None:
    for _ in range(20):
        ids = random_ids(rng, rng.randrange(1, 200))
        sampled = sorted(rng.choices(ids, k=rng.randrange(0, 60)), key=order_of)
        later = random_ids(rng, 50)
        chunks = chunks_between([bson.encode({"_id": each}) for each in sampled], 1000, rng.randrange(2, 12))
        assert [chunk.number for chunk in chunks] == list(range(len(chunks)))
        everything = random.Random(0).sample([*ids, *later], len(ids) + len(later))  # also those that nobody knew of
        read = [value for chunk in chunks for value in found(chunk, everything)]
        assert sorted(map(repr, read)) == sorted(map(repr, everything))


def test_a_chunk_goes_on_behind_any_document_of_it(rng: random.Random) -> None:
    ids = random_ids(rng, 150)
    encoded = [bson.encode({"_id": each}) for each in ids]
    for chunk in (Chunk(0, ALL), *chunks_between(encoded, len(ids), 4), *chunks_between(encoded[:40], len(ids), 3)):
        inside = found(chunk, ids)
        for at, value in enumerate(inside):
            assert found(chunk, ids, after=value) == inside[at + 1 :], (chunk, value)


def test_a_large_bracket_is_cut_and_small_ones_go_together(rng: random.Random) -> None:
    ids = [*(ObjectId(rng.randbytes(12)) for _ in range(1000)), "one", "two", 1, None]
    samples = [bson.encode({"_id": each}) for each in sorted(ids, key=order_of)]
    *large, rest = chunks_between(samples, 100_400, 10)
    assert {chunk.brackets for chunk in large} == {(Bracket.OBJECT_ID,)}
    assert len(large) == 10
    assert [chunk.documents for chunk in large] == [10_000] * 10
    assert set(rest.brackets) == set(ALL) - {Bracket.OBJECT_ID}
    assert rest.documents == 400
    assert large[0].lower is None
    assert large[-1].upper is None
    assert all(before.upper == after.lower is not None for before, after in pairwise(large))


def test_a_plan_survives_json(rng: random.Random) -> None:
    samples = [bson.encode({"_id": each}) for each in random_ids(rng, 100)]
    chunks = chunks_between(samples, 5000, 5)
    encoded = msgspec.json.encode([msgspec.to_builtins(each) for each in chunks])
    assert msgspec.convert(msgspec.json.decode(encoded), list[Chunk]) == chunks


def test_a_small_collection_is_one_chunk_and_no_sample_is_taken() -> None:
    source = FakeCollection([{"_id": i} for i in range(199)])
    assert plan_chunks(source, ORDERS, 100) == [Chunk(0, ALL, documents=199)]  # type: ignore[arg-type]
    assert source.sampled == 0
    assert plan_chunks(FakeCollection([]), ORDERS) == [Chunk(0, ALL, documents=0)]  # type: ignore[arg-type]


def test_a_large_collection_is_cut_into_about_as_many_chunks_as_its_documents_make() -> None:
    source = FakeCollection([{"_id": i} for i in range(5000)])
    *numbers, rest = plan_chunks(source, ORDERS, 500)  # type: ignore[arg-type]
    assert source.sampled == 100
    assert len(numbers) == 10
    ids = [each["_id"] for each in source.documents]
    assert all(400 <= len(found(chunk, ids)) <= 600 for chunk in numbers)
    assert sum(len(found(chunk, ids)) for chunk in numbers) == 5000
    assert found(rest, ids) == []


def test_brackets_are_told_by_bsons_type_numbers(rng: random.Random) -> None:
    for value in random_ids(rng, 300):
        stored = bson.decode(bson.encode({"_id": value}), AS_STORED)["_id"]
        assert bracket_of(bson.encode({"_id": value})) is bracket_of_value(stored)
    with pytest.raises(Fatal, match="type 11,"):
        bracket_of(bson.encode({"_id": bson.Regex("a")}))
