"""The HTTP client against a real server that answers well, badly, late or never."""

import os
import socket
import threading
import time
import traceback
from random import Random

import pytest

from actors.serving.endpoint import Endpoint
from actors.serving.http import BudgetSpent, HttpClient, RequestFailed, ServerUnavailable
from infra.config import ConfigError
from infra.identity import canonical
from tests.support.http_server import Reply, serving

KEY = "sk-never-to-be-seen-5c1d"
FAST = {"first_wait_s": 0.01, "longest_wait_s": 2.0, "timeout_s": 5.0, "unreachable_s": 0.3}


def client(url, **options):
    return HttpClient(Endpoint(base_url=url, **FAST | options), random=Random(0))


def posted(asked, items):
    """Answers to POSTs of the items."""

    async def ask(item):
        return (await asked.post("/v1/echo", {"item": item}))["item"]

    try:
        return asked.gather(ask, items)
    finally:
        asked.close()


def echo(asked):
    return Reply(body=asked.body)


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def test_answers_come_in_the_order_of_the_items_with_as_many_in_flight_as_allowed():
    with serving(lambda asked: Reply(body=asked.body, wait_s=0.05 * (asked.body["item"] % 3))) as server:
        assert posted(client(server.url, in_flight=4), range(24)) == list(range(24))
        assert server.most == 4


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_what_is_transient_is_tried_again(status):
    with serving(lambda asked: echo(asked) if asked.number >= 2 else Reply(status)) as server:
        assert posted(client(server.url), ["a"]) == ["a"]
        assert len(server.asked) == 3


@pytest.mark.parametrize("status", [400, 403, 404, 422])
def test_what_is_final_is_one_items_failure_after_one_try(status):
    def answer(asked):
        return Reply(status, {"error": {"message": "no such thing"}}) if asked.body["item"] == "bad" else echo(asked)

    with serving(answer) as server:
        first, failed, last = posted(client(server.url), ["a", "bad", "b"])
        assert (first, last) == ("a", "b") and len(server.asked) == 3
    assert isinstance(failed, RequestFailed) and f"status {status}: no such thing" in str(failed)


def test_retries_end_after_the_allowed_tries():
    with serving(lambda asked: Reply(500, b"out of memory")) as server:
        [failed] = posted(client(server.url, tries=3), ["a"])
        assert len(server.asked) == 3
    assert isinstance(failed, RequestFailed) and "status 500: out of memory, 3 times" in str(failed)


def test_a_broken_connection_is_tried_again():
    with serving(lambda asked: Reply(body=asked.body, broken=asked.number == 0)) as server:
        assert posted(client(server.url), ["a"]) == ["a"]
        assert len(server.asked) == 2


def test_retry_after_is_waited_for_by_every_request():
    def answer(asked):
        return Reply(429, headers={"Retry-After": "0.6"}) if asked.number == 0 else echo(asked)

    with serving(answer) as server:
        assert posted(client(server.url, in_flight=1), ["a", "b", "c"]) == ["a", "b", "c"]
        first, *others = [asked.at for asked in server.asked]
        assert len(others) == 3 and min(others) - first >= 0.6


def test_a_wait_that_is_too_long_fails_the_request_instead_of_the_stage():
    with serving(lambda asked: Reply(429, headers={"Retry-After": "3600"})) as server:
        [failed] = posted(client(server.url), ["a"])
    assert isinstance(failed, RequestFailed) and "3600 s" in str(failed)


def test_waits_are_spread_evenly_below_a_bound_that_doubles():
    asking = client("http://127.0.0.1:1", first_wait_s=1.0, longest_wait_s=8.0)
    for failures, bound in enumerate([1, 2, 4, 8, 8, 8]):
        waits = [asking._pause(failures) for _ in range(4000)]
        assert min(waits) >= 0 and max(waits) <= bound
        assert sum(waits) / len(waits) == pytest.approx(bound / 2, rel=0.05)


def test_a_refused_key_ends_everything_at_once_and_is_never_shown(monkeypatch):
    monkeypatch.setenv("TEST_SERVER_KEY", KEY)
    told = {"error": {"message": f"Incorrect API key provided: {KEY[:8]}***"}}
    with serving(lambda asked: Reply(401, told)) as server:
        with pytest.raises(ServerUnavailable, match="401: it refuses the key .*TEST_SERVER_KEY") as caught:
            posted(client(server.url, key_variable="TEST_SERVER_KEY", in_flight=2), range(50))
        assert len(server.asked) <= 4
        assert server.asked[0].headers["authorization"] == f"Bearer {KEY}"
    assert KEY[:8] not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("status", [200, 400, 500])
def test_a_key_that_the_server_repeats_is_hidden(monkeypatch, status):
    monkeypatch.setenv("TEST_SERVER_KEY", KEY)
    with serving(lambda asked: Reply(status, b"x" * 290 + KEY.encode())) as server:
        [failed] = posted(client(server.url, key_variable="TEST_SERVER_KEY", tries=2), ["a"])
    assert isinstance(failed, RequestFailed) and KEY[:6] not in str(failed)
    assert KEY[:6] not in "".join(traceback.format_exception(failed))


def test_an_unreachable_server_ends_everything_after_a_bounded_time():
    start = time.monotonic()
    with pytest.raises(ServerUnavailable, match="cannot be reached for .* start the server"):
        posted(client(f"http://127.0.0.1:{free_port()}"), range(20))
    assert 0.3 <= time.monotonic() - start < 5


def test_a_server_that_never_answers_ends_everything_after_a_bounded_time():
    start = time.monotonic()
    never = pytest.raises(ServerUnavailable, match="accepts connections but answers nothing")
    with serving(lambda asked: Reply(wait_s=60)) as server, never:
        posted(client(server.url, timeout_s=0.2, tries=2), range(20))
    assert time.monotonic() - start < 5


def test_one_request_that_never_ends_fails_alone():
    with serving(lambda asked: Reply(body=asked.body, wait_s=60 if asked.body["item"] == "slow" else 0)) as server:
        first, failed, last = posted(client(server.url, timeout_s=0.3, tries=2), ["a", "slow", "b"])
    assert (first, last) == ("a", "b")
    assert isinstance(failed, RequestFailed) and "no answer within 0.3 s, 2 times" in str(failed)


def test_a_server_that_is_started_again_in_the_middle_is_waited_for():
    port = free_port()
    found = []
    asking = client(f"http://127.0.0.1:{port}", in_flight=2, unreachable_s=10.0)
    with serving(lambda asked: Reply(body=asked.body, wait_s=0.02), port=port):
        found += asking.gather(lambda item: asking.post("/", {"item": item}), range(4))

    def start_again():
        time.sleep(0.5)
        with serving(echo, port=port):
            done.wait(10)

    done = threading.Event()
    thread = threading.Thread(target=start_again)
    thread.start()
    found += asking.gather(lambda item: asking.post("/", {"item": item}), range(4, 8))
    done.set()
    thread.join()
    asking.close()
    assert found == [{"item": item} for item in range(8)]


def test_the_budget_counts_repeats_and_what_is_above_it_fails_alone():
    with serving(lambda asked: Reply(500) if asked.number == 0 else echo(asked)) as server:
        found = posted(client(server.url, requests=4, in_flight=1), range(6))
        assert len(server.asked) == 4
    assert found[:3] == [0, 1, 2] and all(isinstance(failed, BudgetSpent) for failed in found[3:])


@pytest.mark.parametrize("body", [b"<html>busy</html>", b"", b"\xff\xfe\x00"])
def test_nonsense_is_one_items_failure(body):
    with serving(lambda asked: Reply(body=body)) as server:
        [failed] = posted(client(server.url), ["a"])
    assert isinstance(failed, RequestFailed) and "is no JSON" in str(failed)


def test_an_endless_answer_is_cut_off():
    with serving(lambda asked: Reply(body=b" " * 3_000_000)) as server:
        [failed] = posted(client(server.url, answer_mb=1.0), ["a"])
    assert isinstance(failed, RequestFailed) and "more than 1 MB" in str(failed)


def test_a_redirection_is_not_followed_with_the_key(monkeypatch):
    monkeypatch.setenv("TEST_SERVER_KEY", KEY)
    with serving(echo) as other, serving(lambda asked: Reply(307, headers={"Location": other.url})) as server:
        [failed] = posted(client(server.url, key_variable="TEST_SERVER_KEY"), ["a"])
        assert isinstance(failed, RequestFailed) and "status 307" in str(failed) and not other.asked


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"base_url": f"http://user:{KEY}@host"}, "no user, password or query"),
        ({"base_url": f"https://host/v1?api_key={KEY}"}, "no user, password or query"),
        ({"base_url": f"ftp://{KEY}"}, "an address such as"),
        ({"base_url": f"http://host:{KEY}"}, "an address such as"),
        ({"base_url": "http://host", "key_variable": KEY}, "the name of an environment variable"),
    ],
)
def test_a_key_in_an_option_is_refused_without_showing_it(options, reason):
    with pytest.raises(ConfigError, match=reason) as caught:
        Endpoint(**options)
    assert KEY not in str(caught.value)


def test_a_variable_that_is_not_set_is_named():
    assert "TEST_NO_SUCH_KEY" not in os.environ
    with pytest.raises(ConfigError, match="TEST_NO_SUCH_KEY is not set"):
        client("http://host", key_variable="TEST_NO_SUCH_KEY")


def test_no_form_of_an_endpoint_holds_the_key(monkeypatch):
    monkeypatch.setenv("TEST_SERVER_KEY", KEY)
    endpoint = Endpoint(base_url="http://host/v1/", key_variable="TEST_SERVER_KEY")
    assert endpoint.base_url == "http://host"
    assert KEY not in f"{endpoint!r} {endpoint.model_dump_json()} {canonical(endpoint)}"
