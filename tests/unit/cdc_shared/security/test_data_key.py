"""One key a pipeline, derived; old ones stay readable; nothing of a key is shown."""

import hmac

import pytest

from cdc_shared.security import crypto
from cdc_shared.security.data_key import DataKeys, DataKeySettings, UnknownDataKey
from cdc_shared.security.references import EnvironmentProvider
from cdc_shared.security.secret_provider import SecretNotFound
from cdc_shared.settings import InvalidSettings, load_settings

pytestmark = pytest.mark.unit

FIRST, SECOND = bytes(range(32)), bytes(range(1, 33))


def resolved(*masters: bytes, separator: str = "\n") -> DataKeys:
    text = separator.join(crypto.encode_key(each) for each in masters)
    return DataKeys.resolve("env:K", {"env": EnvironmentProvider({"K": text})})


def test_a_pipelines_key_is_the_one_that_hkdf_gives() -> None:
    """Computed with RFC 5869's extract and expand by hand (hmac, SHA-256): what is stored must open in ten years."""
    key = DataKeys([FIRST]).current("shop")
    assert key.key.hex() == _hkdf(FIRST, b"cdc data key of pipeline: shop", 32).hex()
    assert key.id == _hkdf(FIRST, b"cdc data key id", 8).hex()


def _hkdf(master: bytes, info: bytes, length: int) -> bytes:
    extracted = hmac.digest(bytes(32), master, "sha256")
    return hmac.digest(extracted, info + b"\x01", "sha256")[:length]


def test_pipelines_and_masters_have_keys_of_their_own() -> None:
    keys = {DataKeys([master]).current(name).key for master in (FIRST, SECOND) for name in ("a", "b")}
    assert len(keys) == 4
    assert {len(each) for each in keys} == {crypto.KEY_BYTES}


@pytest.mark.parametrize("separator", ["\n", " ", ",", ", "])
def test_after_a_rotation_old_data_stays_readable(separator: str) -> None:
    before = resolved(FIRST).current("shop")
    after = resolved(SECOND, FIRST, separator=separator)
    assert after.current("shop") == resolved(SECOND).current("shop")
    assert after.named("shop", before.id) == before


def test_a_key_that_was_taken_away_is_named_by_its_id() -> None:
    lost = resolved(FIRST).current("shop")
    with pytest.raises(UnknownDataKey, match=f"{lost.id}.*put that key back"):
        resolved(SECOND).named("shop", lost.id)


def test_what_is_no_key_is_refused_and_not_shown() -> None:
    with pytest.raises(crypto.InvalidKey, match=r"env:K \(CDC_DATA_KEY\) holds no key: put 32 random") as caught:
        DataKeys.resolve("env:K", {"env": EnvironmentProvider({"K": "hunter2"})})
    assert "hunter2" not in str(caught.value)
    with pytest.raises(SecretNotFound, match="K is not set"):
        DataKeys.resolve("env:K", {"env": EnvironmentProvider({})})


def test_without_a_key_the_setting_says_how_to_make_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CDC_DATA_KEY", raising=False)
    with pytest.raises(InvalidSettings, match=r"CDC_DATA_KEY is not set: set it to a reference.*openssl rand"):
        load_settings(DataKeySettings)
    monkeypatch.setenv("CDC_DATA_KEY", crypto.encode_key(FIRST))
    with pytest.raises(InvalidSettings, match="CDC_DATA_KEY is not valid") as caught:
        load_settings(DataKeySettings)
    assert crypto.encode_key(FIRST) not in str(caught.value)


def test_keys_do_not_show() -> None:
    key = DataKeys([FIRST]).current("shop")
    assert repr(key) == f"DataKey(id='{key.id}')"
    assert f"{key}" == repr(key)
