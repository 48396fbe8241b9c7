"""A Secret does not show itself by any of the usual ways."""

import pickle
from copy import copy
from dataclasses import dataclass

import pytest

from cdc_shared.logging.redaction import redact_value
from cdc_shared.security.secret_provider import Secret

pytestmark = pytest.mark.unit


def test_no_text_form_shows_the_value() -> None:
    secret = Secret("hunter2", version=3)

    @dataclass
    class Holder:
        secret: Secret

    shown = f"{secret} {secret!r} {[secret]} {Holder(secret)} {redact_value({'connection': secret})}"
    assert "hunter2" not in shown
    assert "version=3" in shown
    assert secret.reveal() == "hunter2"


def test_it_has_no_dictionary_and_cannot_be_pickled_or_copied() -> None:
    secret = Secret("hunter2")
    assert not hasattr(secret, "__dict__")
    with pytest.raises(TypeError, match="not pickled"):
        pickle.dumps(secret)
    with pytest.raises(TypeError, match="not pickled"):
        copy(secret)


def test_equality_is_of_values_and_only_with_secrets() -> None:
    assert Secret("a", 1) == Secret("a", 2)
    assert Secret("a") != Secret("b")
    assert Secret("a") != "a"
    with pytest.raises(TypeError, match="unhashable"):
        hash(Secret("a"))
