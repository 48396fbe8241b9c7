"""Kafka Connect's answers, and what each means to the platform."""

import json
from collections.abc import Callable

import httpx
import pytest

from cdc_shared.connect.connect_client import ConnectClient
from cdc_shared.errors import Fatal, Transient

pytestmark = pytest.mark.unit

CONFIG = {
    "connector.class": "x.MongoDbConnector",
    "mongodb.connection.string": "mongodb://h:1/?replicaSet=rs",
    "mongodb.password": "hunter2",
}

ABSENT = httpx.Response(404, json={"error_code": 404, "message": "Connector shop not found"})


class FakeConnect:
    """A Connect worker with one connector; answers in `override` come first."""

    def __init__(self) -> None:
        self.config: dict[str, str] | None = None
        self.states: list[tuple[str, list[str]]] = [("RUNNING", ["RUNNING"])]
        self.override: list[httpx.Response | Exception] = []
        self.requests: list[str] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(f"{request.method} {request.url.raw_path.decode()}")
        if self.override:
            answer = self.override.pop(0)
            if isinstance(answer, Exception):
                raise answer
            return answer
        path = request.url.path
        if path == "/connectors" and request.method == "POST":
            self.config = json.loads(request.content)["config"]
            self.states = [(json.loads(request.content)["initial_state"], [])]
            return httpx.Response(201, json={"name": "shop", "config": self.config})
        if path == "/connectors":
            one = {"info": {"config": {**(self.config or {}), "name": "shop"}}, "status": self._status()}
            return httpx.Response(200, json={"shop": one, "made a moment ago": {}} if self.config else {})
        if path == "/connector-plugins":
            return httpx.Response(200, json=[{"class": "x.MongoDbConnector", "type": "source", "version": "1"}])
        if request.method == "PUT" and path.endswith(("/stop", "/pause", "/resume")):
            return httpx.Response(202)
        if request.method == "PUT":
            self.config = json.loads(request.content)
            return httpx.Response(201, json={"name": "shop", "config": self.config})
        if self.config is None:
            return httpx.Response(404, json={"error_code": 404, "message": "Connector shop not found"})
        if path.endswith("/config"):
            return httpx.Response(200, json=self.config | {"name": "shop"})
        if path.endswith("/status"):
            return httpx.Response(200, json=self._status())
        if request.method == "DELETE":
            self.config = None
        return httpx.Response(204)

    def _status(self) -> dict[str, object]:
        connector, tasks = self.states[0] if len(self.states) == 1 else self.states.pop(0)
        trace = "org.apache.ConnectException: lost mongodb://u:hunter2@h\n\tat a.B.c(B.java:1)\n"
        trace += "Caused by: java.X: no oplog\n\tat d"
        return {
            "name": "shop",
            "connector": {"state": connector, "worker_id": "w:1"},
            "tasks": [
                {"id": i, "state": state, "worker_id": "w:1"} | ({"trace": trace} if state == "FAILED" else {})
                for i, state in enumerate(tasks)
            ],
            "type": "source",
        }


@pytest.fixture
def connect() -> FakeConnect:
    return FakeConnect()


@pytest.fixture
def client(connect: FakeConnect) -> ConnectClient:
    return ConnectClient("http://connect:8083/", transport=httpx.MockTransport(connect))


class Time:
    def __init__(self) -> None:
        self.now_s = 0.0

    def clock(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds


def waiting(client: ConnectClient, timeout_s: float = 30.0) -> Callable[[], object]:
    time = Time()
    return lambda: client.wait_running("shop", timeout_s, clock=time.clock, sleep=time.sleep)


def test_plugins(client: ConnectClient) -> None:
    assert client.plugins() == ["x.MongoDbConnector"]


def test_put_config_makes_and_changes_but_does_not_repeat(client: ConnectClient, connect: FakeConnect) -> None:
    client.put_config("shop", CONFIG)
    client.put_config("shop", CONFIG)
    client.put_config("shop", CONFIG | {"tasks.max": "2"})
    assert [r for r in connect.requests if r.startswith("PUT")] == ["PUT /connectors/shop/config"] * 2
    assert connect.config == CONFIG | {"tasks.max": "2"}


@pytest.mark.parametrize("theirs", [{"connector.class": "io.example.JdbcSink"}, {"topic.prefix": "another"}])
def test_a_connector_of_somebody_else_is_not_configured(
    client: ConnectClient, connect: FakeConnect, theirs: dict[str, str]
) -> None:
    """A pipeline that was given the name of a connector of another team would have taken its place."""
    connect.config = theirs
    with pytest.raises(Fatal, match="belongs to somebody else"):
        client.put_config("shop", CONFIG | {"topic.prefix": "shop"})
    assert connect.config == theirs
    assert client.is_somebody_elses("shop")


def test_ones_own_connector_and_none_are_nobody_elses(client: ConnectClient, connect: FakeConnect) -> None:
    assert not client.is_somebody_elses("shop")
    connect.config = CONFIG | {"topic.prefix": "shop"}
    assert not client.is_somebody_elses("shop")


def test_status_of_none_and_of_one(client: ConnectClient, connect: FakeConnect) -> None:
    assert client.status("shop") is None
    connect.config = CONFIG
    status = client.status("shop")
    assert status is not None
    assert (status.running, status.failure) == (True, None)
    assert str(status) == "connector shop RUNNING, task 0 RUNNING"


@pytest.mark.parametrize("starting", [httpx.Response(404), httpx.Response(404, text="<html>Not Found</html>")])
def test_a_worker_that_starts_knows_no_connector_and_says_nothing_of_them(
    starting: httpx.Response, client: ConnectClient, connect: FakeConnect
) -> None:
    """Its web server answers before Connect does: whoever took that for "there is none" would make or forget one."""
    for ask in (client.status, client.delete, lambda name: client.put_config(name, CONFIG)):
        connect.override = [starting]
        with pytest.raises(Transient, match="it starts"):
            ask("shop")
    connect.override = [starting]
    with pytest.raises(Transient, match="it starts"):
        client.connectors()


def test_all_connectors_in_one_request(client: ConnectClient, connect: FakeConnect) -> None:
    assert client.connectors() == {}
    connect.config = CONFIG
    connect.requests.clear()
    found = client.connectors()
    assert list(found) == ["shop"]
    assert found["shop"].config == CONFIG
    assert found["shop"].status.running
    assert len(connect.requests) == 1


def test_a_connector_made_stopped(client: ConnectClient, connect: FakeConnect) -> None:
    client.create_stopped("shop", CONFIG)
    status = client.status("shop")
    assert status is not None
    assert (status.state, connect.config) == ("STOPPED", CONFIG)


def test_a_running_connector_without_tasks_does_not_run_yet(client: ConnectClient, connect: FakeConnect) -> None:
    connect.config, connect.states = CONFIG, [("RUNNING", [])]
    status = client.status("shop")
    assert status is not None
    assert not status.running


def test_wait_running_waits_out_start_up_and_an_absent_worker(client: ConnectClient, connect: FakeConnect) -> None:
    connect.config = CONFIG
    connect.override = [httpx.ConnectError("refused"), httpx.Response(404), httpx.Response(503, text="starting")]
    connect.states = [("UNASSIGNED", []), ("RUNNING", []), ("RUNNING", ["UNASSIGNED"]), ("RUNNING", ["RUNNING"])]
    assert waiting(client)()
    assert len(connect.requests) == 7


def test_a_failure_left_over_from_before_is_waited_out(client: ConnectClient, connect: FakeConnect) -> None:
    connect.config = CONFIG
    connect.states = [("RUNNING", ["FAILED"])] * 3 + [("RUNNING", ["RUNNING"])]
    assert waiting(client)()


def test_a_lasting_failure_gives_its_causes_without_secrets(client: ConnectClient, connect: FakeConnect) -> None:
    connect.config, connect.states = CONFIG, [("RUNNING", ["FAILED"])]
    with pytest.raises(
        Fatal, match=r"connector shop has failed: org\.apache.* \| Caused by: java\.X: no oplog"
    ) as caught:
        waiting(client)()
    assert "B.java" not in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_the_time_out_tells_what_was_seen_last(client: ConnectClient, connect: FakeConnect) -> None:
    connect.config, connect.states = CONFIG, [("RUNNING", ["UNASSIGNED"])]
    with pytest.raises(Transient, match=r"does not run after 30 s: connector shop RUNNING, task 0 UNASSIGNED"):
        waiting(client)()
    connect.config = None
    with pytest.raises(Transient, match="there is no connector shop"):
        waiting(client)()


@pytest.mark.parametrize(
    ("answer", "kind", "part"),
    [
        (httpx.ConnectError("Connection refused"), Transient, "http://connect:8083: Connection refused"),
        (httpx.ReadTimeout("timed out"), Transient, "timed out"),
        (httpx.Response(409, json={"message": "rebalance in process"}), Transient, "rebalance"),
        (httpx.Response(500, json={"message": "Request timed out"}), Transient, "timed out"),
        (
            httpx.Response(500, json={"message": "start() … before adding callbacks for this zombie fencing"}),
            Transient,
            "restart its workers",
        ),
        (httpx.Response(503, text="<html>"), Transient, "Service Unavailable"),
        (httpx.Response(401, json={"message": "who"}), Fatal, "check the credentials"),
        (httpx.Response(400, json={"message": "invalid value"}), Fatal, "correct the connector's configuration"),
        (httpx.Response(200, text="<html>"), Fatal, "correct CONNECT_URL"),
    ],
)
def test_errors_by_kind(
    client: ConnectClient, connect: FakeConnect, answer: httpx.Response | Exception, kind: type[Exception], part: str
) -> None:
    connect.override = [answer]
    with pytest.raises(kind, match=part):
        client.put_config("shop", CONFIG)


def test_a_refused_configuration_is_explained_without_its_secrets(connect: FakeConnect) -> None:
    def hide(name: str, text: str) -> str:
        assert name == "shop"
        return text.replace(CONFIG["mongodb.connection.string"], "***").replace("hunter2", "***")

    client = ConnectClient("http://connect:8083", httpx.MockTransport(connect), hide=hide)
    echo = f"Connector configuration is invalid: Value {CONFIG['mongodb.connection.string']} and hunter2 are wrong"
    connect.override = [ABSENT, httpx.Response(400, json={"error_code": 400, "message": echo})]
    with pytest.raises(
        Fatal, match="configure connector shop: Kafka Connect answered 400: Connector configuration"
    ) as caught:
        client.put_config("shop", CONFIG)
    assert "hunter2" not in str(caught.value)
    assert "replicaSet" not in str(caught.value)

    connect.config, connect.states = CONFIG, [("FAILED", ["FAILED"])]
    status = client.status("shop")
    assert status is not None
    assert "***" in status.tasks[0].trace
    assert "hunter2" not in repr(status)


def test_a_validation_names_settings_and_shows_no_value(connect: FakeConnect) -> None:
    def value(name: str, text: str, *errors: str) -> dict[str, object]:
        return {"definition": {"name": name}, "value": {"name": name, "value": text, "errors": list(errors)}}

    answers = [
        value("mongodb.password", "hunter2"),
        value("mongodb.connection.string", "${file:/s/shop.properties:x}", "no such host: mongodb://u:hunter2@h"),
        value("tasks.max", "${", "not a number"),
        {"definition": {"name": "topics"}, "value": None},
    ]
    connect.override = [httpx.Response(200, json={"name": "x", "error_count": 2, "configs": answers})]
    client = ConnectClient("http://connect:8083", httpx.MockTransport(connect))
    config = {
        "connector.class": "x.MongoDbConnector",
        "mongodb.password": "${file:/s/shop.properties:mongodb.password}",
    }
    told = client.validate("shop", config | {"mongodb.connection.string": "${file:/s/shop.properties:x}"})

    assert connect.requests == ["PUT /connector-plugins/x.MongoDbConnector/config/validate"]
    assert told == {
        "mongodb.connection.string": ("no such host: mongodb://u:***@h",),
        "tasks.max": ("not a number",),
    }
    assert "hunter2" not in repr(told)


@pytest.mark.parametrize(
    ("setting", "text", "kind", "part"),
    [
        ("mongodb.connection.string", "Unable to connect: Timed out after 30000 ms", Transient, "Timed out"),
        ("mongodb.connection.string", "Unable to connect: Exception authenticating", Fatal, "the secret that it names"),
        ("tasks.max", "must be 1", Fatal, "tasks.max: must be 1; correct"),
    ],
)
def test_what_connect_stumbles_over_is_asked_for(
    client: ConnectClient, connect: FakeConnect, setting: str, text: str, kind: type[Exception], part: str
) -> None:
    stumbled = httpx.Response(500, json={"message": 'Cannot invoke "…ConfigValueInfo.errors()" because it is null'})
    told = {"configs": [{"value": None}, {"value": {"name": setting, "value": None, "errors": [text]}}]}
    connect.override = [ABSENT, stumbled, httpx.Response(200, json=told)]
    with pytest.raises(kind, match="configure connector shop: refused") as caught:
        client.put_config("shop", CONFIG)
    assert part in str(caught.value)

    connect.override = [stumbled, httpx.Response(200, json={"configs": []})]
    with pytest.raises(Transient, match="create connector shop: Kafka Connect answered 500"):
        client.create_stopped("shop", CONFIG)


def test_delete_and_restart(client: ConnectClient, connect: FakeConnect) -> None:
    assert client.delete("shop") is False
    with pytest.raises(Fatal, match="make the connector first"):
        client.restart("shop")
    connect.config = CONFIG
    client.restart("shop")
    client.restart("shop", only_failed=False)
    assert connect.requests[-2:] == [
        "POST /connectors/shop/restart?includeTasks=true&onlyFailed=true",
        "POST /connectors/shop/restart?includeTasks=true&onlyFailed=false",
    ]
    assert client.delete("shop") is True
    assert client.delete("shop") is False


def test_a_stop_waits_until_the_tasks_have_ended(client: ConnectClient, connect: FakeConnect) -> None:
    client.put_config("shop", CONFIG)
    connect.states = [("RUNNING", ["RUNNING"]), ("STOPPED", ["RUNNING"]), ("STOPPED", [])]
    client.stop("shop", 10.0)
    assert len(connect.states) == 1
    assert "PUT /connectors/shop/stop" in connect.requests
    client.resume("shop")
    assert connect.requests[-1] == "PUT /connectors/shop/resume"


def test_a_pause_does_not_wait(client: ConnectClient, connect: FakeConnect) -> None:
    client.pause("shop")
    assert connect.requests == ["PUT /connectors/shop/pause"]


def test_a_connector_that_does_not_stop_is_transient(client: ConnectClient, connect: FakeConnect) -> None:
    client.put_config("shop", CONFIG)
    with pytest.raises(Transient, match="has not stopped after 0 s: connector shop RUNNING"):
        client.stop("shop", 0.0)


def test_offsets_are_forgotten_once_the_last_task_is_fenced(client: ConnectClient, connect: FakeConnect) -> None:
    client.put_config("shop", CONFIG)
    connect.override = [httpx.Response(400, json={"message": "zombie tasks"}), httpx.Response(200, json={})]
    client.forget_offsets("shop", 10.0)
    assert connect.requests[-2:] == ["DELETE /connectors/shop/offsets"] * 2
    connect.override = [httpx.Response(400, json={"message": "zombie tasks"})]
    with pytest.raises(Fatal, match="zombie tasks"):
        client.forget_offsets("shop", 0.0)


def test_names_are_escaped_in_paths(client: ConnectClient, connect: FakeConnect) -> None:
    client.status("a/b c")
    assert connect.requests == ["GET /connectors/a%2Fb%20c/status"]


def test_a_wrong_url_is_fatal() -> None:
    with ConnectClient("connect:8083") as client, pytest.raises(Fatal, match="correct CONNECT_URL"):
        client.plugins()
