"""What is told of an error that nobody raised on purpose: never a value of a document."""

import duckdb
import obstore.exceptions
import pyarrow as pa
import pytest
from confluent_kafka import KafkaException
from deltalake.exceptions import CommitFailedError, DeltaError

from cdc_shared.documents.extended_json import parse_document
from cdc_shared.errors import Fatal, Transient, may_be_shown, shown

pytestmark = pytest.mark.unit

VALUE = "jane.doe@corp"


def raised(call):
    with pytest.raises(Exception) as caught:  # noqa: PT011 # whatever the library raises
        call()
    return caught.value


QUOTING = [
    lambda: pa.array([1, VALUE], pa.int64()),
    lambda: pa.array([VALUE]).cast(pa.int64()),
    lambda: int(VALUE),
    lambda: {}[VALUE],
    lambda: duckdb.sql(f"SELECT CAST('{VALUE}' AS INTEGER)").fetchall(),
    lambda: VALUE.encode("utf-16").decode("ascii"),
]


@pytest.mark.parametrize("call", QUOTING)
def test_what_quotes_a_value_is_told_by_type_and_place(call):
    error = raised(call)
    assert VALUE in str(error) or isinstance(error, UnicodeDecodeError), "the library quotes it"
    text = shown(error)
    assert VALUE not in text
    assert text.startswith(f"unexpected {type(error).__name__} at ")


def test_the_place_is_in_our_code():
    """Not where a library, or the module that called us, has it."""
    error = raised(lambda: parse_document(7))
    assert shown(error).startswith(f"unexpected {type(error).__name__} at cdc_shared.documents.")
    assert shown(ValueError(VALUE)) == "unexpected ValueError", "it was never raised"


@pytest.mark.parametrize(
    "error",
    [
        Fatal("correct the root"),
        Transient("away"),
        FileNotFoundError(2, "No such file", "/lake"),
        ConnectionRefusedError("localhost:9092"),
        obstore.exceptions.NotFoundError("no object at part-1"),
        obstore.exceptions.GenericError("503 SlowDown"),
        DeltaError("Generic error: no such table"),
        CommitFailedError("version 3 exists"),
        KafkaException("broker is down"),
    ],
)
def test_what_speaks_of_systems_is_told_in_its_own_words(error):
    assert may_be_shown(error)
    assert shown(error) == str(error)


def test_delta_rs_is_not_believed_where_it_speaks_of_values():
    error = DeltaError(f"External error: Arrow error: Cast error: Cannot cast string '{VALUE}' to value of Int64 type")
    assert shown(error) == "unexpected DeltaError"
