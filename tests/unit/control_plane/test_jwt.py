"""Access tokens: which are good, which are not, and how signing keys follow one another without signing anybody out."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import random
import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from jose import jwk, jwt

from cdc_shared.errors import Transient
from cdc_shared.security.secret_provider import Secret, SecretNotFound
from control_plane.services import key_ring
from control_plane.services.access_tokens import (
    AUDIENCE,
    CLOCK_SKEW_S,
    ISSUER,
    LIFETIME,
    AccessTokens,
    ExpiredToken,
    InvalidToken,
)
from control_plane.services.key_ring import KeyRing
from control_plane.services.signing_keys import InvalidSigningKeys, SigningKeys, generate_key

pytestmark = [pytest.mark.unit, pytest.mark.anyio]

USER, SESSION = uuid.uuid4(), uuid.uuid4()
PEM = generate_key()
KEYS = SigningKeys.parse(PEM, "the test")


class Clock:
    """Seconds that pass when told."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Keeper:
    """A secret that tests replace."""

    def __init__(self, *pems: str) -> None:
        self.pems = pems
        self.reads = 0
        self.away = False

    def __call__(self) -> SigningKeys:
        self.reads += 1
        if self.away:
            raise Transient("the keeper of secrets does not answer")
        return SigningKeys.parse("\n".join(self.pems), "the test")


def tokens_of(keeper: Keeper, clock: Callable[[], float]) -> AccessTokens:
    return AccessTokens(KeyRing(keeper(), keeper, clock))


@pytest.fixture
def tokens() -> AccessTokens:
    return tokens_of(Keeper(PEM), Clock())


def signed(changes: dict[str, Any] | None = None, header: dict[str, Any] | None = None, pem: str = PEM) -> str:
    """A token as ours are, but for `changes`; None takes a claim away."""
    now = datetime.now(UTC)
    claims: dict[str, Any] = {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "sub": str(USER),
        "sid": str(SESSION),
        "jti": str(uuid.uuid4()),
        "iat": now,
        "nbf": now,
        "exp": now + timedelta(minutes=5),
    } | (changes or {})
    claims = {name: value for name, value in claims.items() if value is not None}
    token: str = jwt.encode(
        claims, pem, algorithm="ES256", headers={"kid": KEYS.newest, "typ": "at+jwt"} | (header or {})
    )
    return token


def unsigned(header: dict[str, Any], sign: Callable[[bytes], bytes] = lambda _: b"") -> str:
    """A token with any header, its claims as ours are."""

    def part(value: bytes) -> bytes:
        return base64.urlsafe_b64encode(value).rstrip(b"=")

    payload = signed().split(".")[1].encode()
    message = part(json.dumps(header).encode()) + b"." + payload
    return (message + b"." + part(sign(message))).decode()


async def test_a_token_that_was_issued_is_good_and_names_user_and_session(tokens: AccessTokens) -> None:
    claims = await tokens.verify(await tokens.issue(USER, SESSION, datetime.now(UTC)))
    assert (claims.user, claims.session) == (USER, SESSION)
    assert (await tokens.verify(signed())).user == USER  # so that what follows fails for its own reason


async def test_each_token_has_an_id_of_its_own_and_says_nothing_of_rights(tokens: AccessTokens) -> None:
    now = datetime.now(UTC)
    first, second = [jwt.get_unverified_claims(await tokens.issue(USER, SESSION, now)) for _ in range(2)]
    assert first["jti"] != second["jti"]
    assert first.keys() == {"iss", "aud", "sub", "sid", "jti", "iat", "nbf", "exp"}
    assert first["exp"] - first["iat"] == LIFETIME.total_seconds()


async def test_an_expired_token_is_told_apart_from_a_bad_one(tokens: AccessTokens) -> None:
    skew = timedelta(seconds=CLOCK_SKEW_S + 2)
    with pytest.raises(ExpiredToken):
        await tokens.verify(await tokens.issue(USER, SESSION, datetime.now(UTC) - LIFETIME - skew))


async def test_a_token_of_a_machine_whose_clock_is_a_little_ahead_is_good(tokens: AccessTokens) -> None:
    ahead = datetime.now(UTC) + timedelta(seconds=CLOCK_SKEW_S - 2)
    assert (await tokens.verify(await tokens.issue(USER, SESSION, ahead))).user == USER


@pytest.mark.parametrize(
    "changes",
    [
        {"aud": "another-api"},
        {"aud": [AUDIENCE + "x"]},
        {"iss": "somebody-else"},
        {"nbf": datetime.now(UTC) + timedelta(hours=1)},
        {"sub": "admin"},
        {"sid": "1"},
        *({missing: None} for missing in ("iss", "aud", "sub", "sid", "jti", "iat", "nbf", "exp")),
    ],
    ids=str,
)
async def test_a_well_signed_token_for_something_else_is_refused(tokens: AccessTokens, changes: dict[str, Any]) -> None:
    with pytest.raises(InvalidToken) as refused:
        await tokens.verify(signed(changes))
    assert not isinstance(refused.value, ExpiredToken)


async def test_a_token_of_another_key_is_refused_also_under_the_id_of_ours(tokens: AccessTokens) -> None:
    other = generate_key()
    for header in ({}, {"kid": SigningKeys.parse(other, "").newest}, {"kid": None}, {"kid": ["x"]}):
        with pytest.raises(InvalidToken):
            await tokens.verify(signed(header=header, pem=other))


@pytest.mark.parametrize("algorithm", ["none", "None", "NONE", "HS256", "ES384", "RS256", "", None, 7])
async def test_no_algorithm_but_ours_is_taken(tokens: AccessTokens, algorithm: object) -> None:
    header = {"alg": algorithm, "kid": KEYS.newest, "typ": "at+jwt"}
    with pytest.raises(InvalidToken):
        await tokens.verify(unsigned(header))


async def test_a_token_without_a_signature_is_refused(tokens: AccessTokens) -> None:
    with pytest.raises(InvalidToken):
        await tokens.verify(unsigned({"alg": "ES256", "kid": KEYS.newest, "typ": "at+jwt"}))


async def test_our_public_key_is_no_password_for_hmac(tokens: AccessTokens) -> None:
    """The classic confusion: whoever knows the public key signs with it as if it were a shared secret."""
    public = jwk.construct(PEM, "ES256").public_key().to_pem()

    def sign(message: bytes) -> bytes:
        return hmac.new(public, message, hashlib.sha256).digest()

    with pytest.raises(InvalidToken):
        await tokens.verify(unsigned({"alg": "HS256", "kid": KEYS.newest, "typ": "at+jwt"}, sign))


@pytest.mark.parametrize("kind", ["JWT", "refresh+jwt", None])
async def test_a_token_of_another_type_is_refused(tokens: AccessTokens, kind: str | None) -> None:
    with pytest.raises(InvalidToken):
        await tokens.verify(signed(header={"typ": kind}))


async def test_a_token_with_any_character_changed_is_refused(tokens: AccessTokens, rng: random.Random) -> None:
    token = await tokens.issue(USER, SESSION, datetime.now(UTC))
    padding = len(token) - 1  # the last character's low bits are no part of the signature
    for place in rng.sample(range(padding), 60):
        other = rng.choice([each for each in "ABCxyz019-_" if each != token[place]])
        with pytest.raises(InvalidToken):
            await tokens.verify(token[:place] + other + token[place + 1 :])


@pytest.mark.parametrize(
    "text",
    ["", ".", "..", "a.b.c", "é.é.é", "x" * 5000, "eyJhbGciOiJFUzI1NiJ9..", "[].[].[]", "bnVsbA.bnVsbA.x", "\x00"],
)
async def test_text_that_is_no_token_is_refused_and_nothing_worse(tokens: AccessTokens, text: str) -> None:
    with pytest.raises(InvalidToken):
        await tokens.verify(text)


async def test_a_new_key_signs_from_then_on_and_signs_nobody_out() -> None:
    keeper, clock = Keeper(PEM), Clock()
    tokens = tokens_of(keeper, clock)
    before = await tokens.issue(USER, SESSION, datetime.now(UTC))
    keeper.pems = (generate_key(), PEM)
    clock.now += key_ring.REREAD_AFTER_S
    after = await tokens.issue(USER, SESSION, datetime.now(UTC))
    assert jwt.get_unverified_header(before)["kid"] == KEYS.newest
    assert jwt.get_unverified_header(after)["kid"] == SigningKeys.parse(keeper.pems[0], "").newest
    for token in (before, after):
        assert (await tokens.verify(token)).user == USER


async def test_a_key_that_was_taken_away_is_good_no_more() -> None:
    keeper, clock = Keeper(PEM), Clock()
    tokens = tokens_of(keeper, clock)
    token = await tokens.issue(USER, SESSION, datetime.now(UTC))
    keeper.pems = (generate_key(),)
    clock.now += key_ring.REREAD_AFTER_S
    with pytest.raises(InvalidToken):
        await tokens.verify(token)


async def test_a_token_of_a_process_that_has_the_new_key_already_is_good_at_once() -> None:
    keeper, clock = Keeper(PEM), Clock()
    slow = tokens_of(keeper, clock)
    keeper.pems = (generate_key(), PEM)
    token = await tokens_of(keeper, clock).issue(USER, SESSION, datetime.now(UTC))
    clock.now += key_ring.REREAD_FOR_UNKNOWN_AFTER_S
    assert (await slow.verify(token)).user == USER


async def test_forged_key_ids_do_not_have_the_secret_read_each_time() -> None:
    keeper, clock = Keeper(PEM), Clock()
    tokens = tokens_of(keeper, clock)
    clock.now += key_ring.REREAD_FOR_UNKNOWN_AFTER_S
    before = keeper.reads
    for number in range(50):
        with pytest.raises(InvalidToken):
            await tokens.verify(signed(header={"kid": f"forged-{number}"}))
    assert keeper.reads == before + 1


async def test_a_keeper_of_secrets_that_is_away_signs_nobody_out() -> None:
    keeper, clock = Keeper(PEM), Clock()
    tokens = tokens_of(keeper, clock)
    keeper.away = True
    clock.now += 10 * key_ring.REREAD_AFTER_S
    assert (await tokens.verify(await tokens.issue(USER, SESSION, datetime.now(UTC)))).user == USER


class Provider:
    """Keeps secrets; `writable` ones can be given one."""

    def __init__(self, **secrets: str) -> None:
        self.secrets = secrets

    def get(self, name: str) -> Secret:
        if name not in self.secrets:
            raise SecretNotFound(f"no secret {name}")
        return Secret(self.secrets[name])


class WritableKeeper(Provider):
    def add(self, name: str, value: str) -> Secret:
        return Secret(self.secrets.setdefault(name, value))


def test_a_missing_key_is_made_once_where_it_can_be_kept() -> None:
    keeper = WritableKeeper()
    made = SigningKeys.read_or_make("secret:keys", {"secret": keeper})
    assert SigningKeys.read_or_make("secret:keys", {"secret": keeper}).newest == made.newest
    with pytest.raises(SecretNotFound):
        SigningKeys.read_or_make("env:KEYS", {"env": Provider()})


def other_curve() -> str:
    key = ec.generate_private_key(ec.SECP384R1())
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return key.private_bytes(*form).decode()


@pytest.mark.parametrize("text", ["", "planted-secret", PEM.replace("M", "N", 40), other_curve()])
def test_a_secret_that_holds_no_key_is_refused_without_showing_it(text: str) -> None:
    with pytest.raises(InvalidSigningKeys, match="API_SIGNING_KEYS") as refused:
        SigningKeys.read("env:KEYS", {"env": Provider(KEYS=text or " ")})
    assert "planted" not in str(refused.value)
    assert "PRIVATE" not in str(refused.value)


def test_keys_show_nothing_of_themselves() -> None:
    assert "PRIVATE" not in repr(KEYS)
    assert "CryptographyECKey" not in repr(KEYS)
