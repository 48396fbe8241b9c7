"""The time that a connector's committed position names."""

import base64
import json

import bson
import httpx
import pytest

from cdc_shared.connect.connect_client import ConnectClient
from cdc_shared.errors import Fatal, Transient
from delta_writer.watermark.resume_token import ResumeTokenSource, resume_token_time_ms

pytestmark = pytest.mark.unit

# As MongoDB makes them, with the time in bytes 1 to 4; and one of the local stack's source.
MONGODB_DATA = (
    "8263B23A4E000000012B042C0100296E5A1004A7F2EE1C4C7B4F0F8C2D4B0C8A3D1E5F46645F6964006463B23A4E8F2A1B3C4D5E6F70000004"
)
SECANTUSDB_TOKEN = (
    "cQAAAAJfZGF0YQBhAAAAMzAwMDAwMDAxMDczMDAwMWVkMDEwMDExNzQwMDU4MDIwMDAwNWJmZTAzNmIwMjZlMDAwYTAwMDAwMDc4MzYzNTM0"
    "MzM2MjM1MmU2MTAwMDM2YjAwMDUwMDAwMDAwMDAwAAA="
)


def as_debezium_keeps_it(data: str) -> str:
    return base64.b64encode(bson.encode({"_data": data})).decode()


@pytest.mark.parametrize(
    ("token", "time_s"),
    [
        (MONGODB_DATA, 0x63B23A4E),
        (as_debezium_keeps_it(MONGODB_DATA), 0x63B23A4E),
        (as_debezium_keeps_it("82FFFFFFFF00000001"), 0xFFFFFFFF),
        (SECANTUSDB_TOKEN, 1_795_423_835),
    ],
)
def test_the_time_in_a_token(token: str, time_s: int) -> None:
    assert resume_token_time_ms(token) == time_s * 1000


def test_bson_that_begins_like_a_key_string_is_read_as_bson() -> None:
    """Attacks I12: a document of 0x82 bytes begins with that byte; read as a KeyString it would name another time."""
    body = bson.encode({"t": bson.Timestamp(7, 1), "n": "x" * 106})
    assert body[0] == 0x82
    assert resume_token_time_ms(as_debezium_keeps_it(body.hex())) == 7000


@pytest.mark.parametrize("token", ["", "82", "nonsense", as_debezium_keeps_it("0011"), "826E5A"])
def test_a_token_of_another_kind_is_refused(token: str) -> None:
    with pytest.raises(Fatal, match=r"set watermark\.source: sentinel"):
        resume_token_time_ms(token)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def source(clock: Clock, *answers: object) -> ResumeTokenSource:
    told = iter(answers)

    def answer(request: httpx.Request) -> httpx.Response:
        assert request.url.path == "/connectors/p/offsets"
        offsets = next(told)
        if isinstance(offsets, int):
            return httpx.Response(offsets)
        return httpx.Response(200, content=json.dumps({"offsets": offsets}))

    connect = ConnectClient("http://connect:8083", httpx.MockTransport(answer))
    return ResumeTokenSource("p", connect, 5.0, clock, clock.sleep)


def position(**offset: object) -> dict[str, object]:
    return {"partition": {"server_id": "p"}, "offset": {"sec": -1, "ord": -1, "resume_token": MONGODB_DATA} | offset}


def test_it_asks_once_an_interval() -> None:
    clock = Clock()
    times = source(clock, [position()], [position()])
    assert times.next(1.0) == 0x63B23A4E * 1000
    assert [times.next(1.0) for _ in range(5)] == [None] * 5
    assert clock.now == 5.0
    assert times.next(1.0) is not None


def test_before_the_stream_there_is_no_time() -> None:
    """Attacks I12: while a snapshot goes on, the position says nothing of what was sent."""
    clock = Clock()
    times = source(clock, [], [position(initsync=True)], [{"partition": {}, "offset": None}])
    for _ in range(3):
        assert times.next(0.2) is None
        clock.now += 5.0


def test_connect_being_away_is_told() -> None:
    with pytest.raises(Transient, match="read the offsets of connector p"):
        source(Clock(), 503).next(1.0)
