"""Whatever a query's process may tell is a problem of its own kind."""

import pytest

from cdc_shared.analytics.query_process import ERRORS
from cdc_shared.errors import Transient
from control_plane.services.lake_queries import STATUSES

pytestmark = pytest.mark.unit


def test_every_error_of_a_query_has_a_status() -> None:
    assert set(STATUSES) | {Transient.__name__} == set(ERRORS)
