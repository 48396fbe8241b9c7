"""Passwords: what is kept, what is compared, what is good enough."""

from __future__ import annotations

import pytest

from control_plane.services.passwords import MAX_BYTES, Passwords, Verdict, generate_password, weakness

pytestmark = [pytest.mark.unit, pytest.mark.anyio]

GOOD = "Trains-run-at-04:10"


@pytest.fixture(scope="module")
def passwords() -> Passwords:
    """With settings that take no time."""
    return Passwords(memory_kib=8, passes=1)


async def test_the_right_password_and_no_other_is_accepted(passwords: Passwords) -> None:
    kept = await passwords.hash(GOOD)
    assert kept.startswith("$argon2id$")
    assert GOOD not in kept
    assert kept != await passwords.hash(GOOD)
    assert (await passwords.verify(GOOD, kept)).right
    for wrong in (GOOD + " ", GOOD.lower(), GOOD[:-1], "", "\x00", GOOD + "\x00"):
        assert not (await passwords.verify(wrong, kept)).right


async def test_one_that_looks_the_same_is_the_same_whatever_the_keyboard(passwords: Passwords) -> None:
    assert (await passwords.verify("pa\u0308chter-im-haus", await passwords.hash("p\u00e4chter-im-haus"))).right


async def test_a_user_that_does_not_exist_has_no_right_password(passwords: Passwords) -> None:
    for password in (GOOD, "", passwords._nobodys):
        verdict = await passwords.verify(password, None)
        assert not verdict.right
        assert verdict.new_hash is None


async def test_a_hash_of_weaker_settings_is_replaced_at_the_next_sign_in(passwords: Passwords) -> None:
    stronger = Passwords(memory_kib=16, passes=2)
    old = await passwords.hash(GOOD)
    verdict = await stronger.verify(GOOD, old)
    assert verdict.right
    assert verdict.new_hash is not None
    assert "m=16,t=2" in verdict.new_hash
    assert await stronger.verify(GOOD, verdict.new_hash) == Verdict(right=True)
    assert (await stronger.verify("wrong", old)).new_hash is None


@pytest.mark.parametrize(
    "password", ["x" * 5000, "\ufdfa" * 200, "\ud800" * 20], ids=["long", "expanding", "surrogates"]
)
async def test_a_password_that_cannot_be_hashed_is_wrong_and_nothing_worse(passwords: Passwords, password: str) -> None:
    assert not (await passwords.verify(password, await passwords.hash(GOOD))).right
    assert weakness(password + GOOD, "ada") is not None


@pytest.mark.parametrize(
    ("password", "reason"),
    [
        ("Short-1!", "12 characters"),
        ("aaaabbbbcccc", "different characters"),
        ("password1234", "guessed"),
        ("Passw0rd-2024-!", None),
        ("PASSWORD.2024.", "guessed"),
        ("qwerty-qwerty-12", "guessed"),
        ("123456789012", "guessed"),
        ("my-ada-lovelace-9", "user's name"),
        ("nul-\x00-in-the-middle", "no text"),
        ("half-a-\ud800-character", "no text"),
        (GOOD, None),
        ("correct horse battery staple", None),
        ("ä-lange-Brücke-über-öde", None),
        (GOOD * (MAX_BYTES // len(GOOD) + 1), "bytes at most"),
    ],
)
def test_what_is_good_enough(password: str, reason: str | None) -> None:
    said = weakness(password, "ada-lovelace")
    assert (said is None) if reason is None else (said is not None and reason in said)
    assert said is None or password not in said


def test_generated_passwords_are_good_and_all_different() -> None:
    made = {generate_password() for _ in range(200)}
    assert len(made) == 200
    assert all(weakness(each, "admin") is None for each in made)
