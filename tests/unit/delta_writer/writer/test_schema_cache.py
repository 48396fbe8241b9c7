"""A schema is believed for five minutes after somebody has looked."""

import pytest

from cdc_shared.documents import DocumentSchema, Field
from cdc_shared.documents import types as t
from delta_writer.writer.schema_cache import TTL_S, SchemaCache

pytestmark = pytest.mark.unit

TABLE = DocumentSchema((Field("a", t.LONG),))
OTHER = DocumentSchema((Field("a", t.LONG), Field("b", t.LONG)))
WIDER = DocumentSchema((Field("a", t.LONG), Field("nothing yet", t.NULL)))


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_a_schema_is_believed_for_five_minutes():
    assert TTL_S == 300
    clock = Clock()
    cache = SchemaCache(clock)
    assert cache.must_look("url")
    cache.put("url", TABLE, WIDER)
    clock.now += 299
    assert (cache.must_look("url"), cache.documents("url", TABLE)) == (False, WIDER)
    clock.now += 1
    assert (cache.must_look("url"), cache.documents("url", TABLE)) == (True, None)
    cache.put("url", TABLE, WIDER)
    assert not cache.must_look("url")


def test_it_holds_for_the_table_that_had_that_schema():
    cache = SchemaCache(Clock())
    cache.put("url", TABLE, WIDER)
    assert cache.documents("url", OTHER) is None
    assert cache.documents("other url", TABLE) is None
    assert cache.documents("url", TABLE) == WIDER
