"""The first batch of a new collection: typed by a sample where that is enough, never differently."""

import pytest

from cdc_shared.documents import DocumentSchema, decode, decoder, equal, infer
from cdc_shared.documents.decoder import SAMPLE_ROWS

pytestmark = pytest.mark.unit


def test_a_uniform_first_batch_is_typed_by_a_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [f'{{"_id": {i},"n": {{"$numberLong": "{i}"}},"tags": ["a"]}}' for i in range(2 * SAMPLE_ROWS)]
    looked_at = []
    monkeypatch.setattr(
        decoder, "infer", lambda sample, *a, **k: looked_at.append(len(sample)) or infer(sample, *a, **k)
    )
    result = decode(texts, DocumentSchema())
    assert looked_at == [SAMPLE_ROWS]
    assert result.schema == infer(texts, DocumentSchema())
    assert result.table["n"].to_pylist() == list(range(2 * SAMPLE_ROWS))


@pytest.mark.parametrize("odd", ['{"_id": 1,"n": 2.5}', '{"_id": 1,"n": 1,"new": 1}', '{"_id": 1,"n": "x"}', "{"])
def test_types_do_not_depend_on_which_documents_the_sample_holds(odd: str) -> None:
    texts = [f'{{"_id": {i},"n": {i}}}' for i in range(2 * SAMPLE_ROWS)]
    texts[1] = odd  # every second document is in the sample: this one is not
    result = decode(texts, DocumentSchema())
    assert result.schema == infer(texts, DocumentSchema())
    for row in range(4):
        if row not in result.invalid:
            values = {name: result.table[name][row].as_py() for name in result.table.column_names}
            assert equal(texts[row], values, result.schema, result.rescued[row].as_py())
