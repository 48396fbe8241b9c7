"""The filter rule: which documents have a row, and what becomes of the row of one that stops to match."""

import random

import pytest
from local_pipeline import LocalPipeline

from cdc_shared.models.data_quality import QualitySpec

pytestmark = pytest.mark.unit

FILTER = {"rule": "filter", "name": "europe", "expression": "region = 'EU'"}


def pipeline(tmp_path, *rules, mode="deletion_vectors", history=False, **dirty_data):
    run = LocalPipeline(tmp_path, mode=mode, history=history)
    quality = QualitySpec.model_validate({"validation": rules or (FILTER,), "dirty_data": dirty_data})
    run.spec = run.spec.model_copy(update={"quality": quality})
    return run


def rows(run):
    return {row["_id"]: row["n"] for row in run.rows().select(["_id", "n"]).to_pylist()}


@pytest.mark.parametrize("mode", ["deletion_vectors", "copy_on_write"])
@pytest.mark.parametrize("max_rows", [1, 100])
@pytest.mark.parametrize("policy", ["dlq", "fail"])
def test_rows_come_and_go_as_documents_match(tmp_path, mode, max_rows, policy):
    run = pipeline(tmp_path, mode=mode, policy=policy)
    run.max_rows = run.kafka.records_a_poll = max_rows
    run.kafka.send("1", "c", {"_id": 1, "n": 1, "region": "EU"})
    run.kafka.send("2", "c", {"_id": 2, "n": 2, "region": "US"})
    run.kafka.send("3", "r", {"_id": 3, "n": 3, "region": "EU"})
    run.kafka.send("4", "r", {"_id": 4, "n": 4})
    run.go()
    assert rows(run) == {1: 1, 3: 3}
    run.kafka.send("1", "u", {"_id": 1, "n": 10, "region": "US"})
    run.kafka.send("2", "u", {"_id": 2, "n": 20, "region": "EU"})
    run.kafka.send("3", "r", {"_id": 3, "n": 30, "region": None})
    run.go()
    assert rows(run) == {2: 20}
    assert run.letters == []


def test_the_history_has_the_changes_that_matched(tmp_path):
    run = pipeline(tmp_path, history=True)
    run.kafka.send("1", "c", {"_id": 1, "n": 1, "region": "EU"})
    run.kafka.send("1", "u", {"_id": 1, "n": 2, "region": "US"})
    run.kafka.send("2", "c", {"_id": 2, "n": 3, "region": "EU"})
    run.kafka.send("1", "d", None)
    run.go()
    assert run.rows("things__changes", "_cdc_offset")["_cdc_offset"].to_pylist() == [0, 2, 3]
    assert rows(run) == {2: 3}


def test_what_cannot_be_evaluated_stays_and_what_fails_another_rule_is_a_letter(tmp_path):
    number = {"rule": "filter", "expression": "CAST(total AS BIGINT) > 5"}
    run = pipeline(tmp_path, number, {"rule": "required", "path": "/n"})
    run.kafka.send("1", "c", {"_id": 1, "n": 1, "total": "n/a"})
    run.kafka.send("2", "c", {"_id": 2, "n": 2, "total": "3"})
    run.kafka.send("3", "c", {"_id": 3, "total": "9"})
    run.kafka.send("4", "c", {"_id": 4, "total": "1"})
    run.go()
    assert rows(run) == {1: 1}
    assert [(letter.offset, letter.rejection.code) for letter in run.letters] == [(2, "validation_failed")]


def test_random_changes_leave_what_a_where_clause_would(tmp_path, rng: random.Random):
    run = pipeline(tmp_path, history=True)
    expected: dict[int, int] = {}
    for n in range(300):
        key = rng.randrange(20)
        if rng.random() < 0.2:
            run.kafka.send(str(key), "d", None)
            expected.pop(key, None)
        else:
            region = rng.choice(["EU", "US", None, 7])
            run.kafka.send(str(key), rng.choice("cur"), {"_id": key, "n": n, "region": region})
            expected.pop(key, None)
            if region in ("EU", 7):  # a number cannot be compared with a text: such a document stays
                expected[key] = n
        if rng.random() < 0.1:
            run.max_rows = rng.choice([1, 7, 100])
            run.go()
    run.go()
    assert rows(run) == expected


@pytest.mark.parametrize(
    "rule",
    [
        {"rule": "filter", "expression": "true) OR (true"},
        {"rule": "filter", "expression": "now() > created"},
        {"rule": "filter", "expression": "n + 1"},
        {"rule": "filter", "expression": "n > 1", "on_failure": "dlq"},
    ],
)
def test_what_is_no_filter_is_refused(rule):
    from cdc_shared.rules.compiled import check_rules
    from cdc_shared.rules.rule_checks import InvalidRules

    with pytest.raises((InvalidRules, ValueError)):
        check_rules(QualitySpec.model_validate({"validation": [rule]}))


def test_an_expression_may_end_in_a_comment(tmp_path):
    run = pipeline(tmp_path, {**FILTER, "expression": "region = 'EU' -- only these"})
    run.kafka.send("1", "c", {"_id": 1, "n": 1, "region": "EU"})
    run.kafka.send("2", "c", {"_id": 2, "n": 2, "region": "US"})
    run.go()
    assert rows(run) == {1: 1}
