"""A language model behind an address: what is asked, tried again, refused, and said."""

import json
import socket
import threading
from itertools import count, pairwise

import pytest

from analyze.export.endpoint import AnswerError, Chat, Endpoint
from pipeline.errors import ConfigError

KEY = "sk-secret-123"
ASK = [{"role": "user", "content": "what is it?"}]


def ask(url: str, pauses: list[float] | None = None, **changes) -> str:
    fields = {"model_name": "tiny", "key": KEY, "timeout": 5.0, "retries": 3} | changes
    chat = Chat(Endpoint(url, **fields), (pauses if pauses is not None else []).append)
    try:
        return chat.ask(ASK)
    finally:
        chat.close()


def in_turn(*replies):
    numbers = count()
    return lambda body: replies[min(next(numbers), len(replies) - 1)]


@pytest.fixture
def raw():
    """An address whose connections a function of the test answers, in a thread."""
    listening, threads = socket.create_server(("127.0.0.1", 0)), []

    def start(answer) -> str:
        threads.append(threading.Thread(target=answer, args=(listening,)))
        threads[-1].start()
        return f"http://127.0.0.1:{listening.getsockname()[1]}/v1"

    yield start
    for thread in threads:
        thread.join()
    listening.close()


def test_a_question_goes_out_as_a_chat_completion_and_its_answer_comes_back(serve, completion):
    stub = serve(in_turn((200, completion("it is a colon"))))
    assert ask(stub.url + "/") == "it is a colon"
    assert stub.paths == ["/v1/chat/completions"]
    expected = {"model": "tiny", "messages": ASK, "temperature": 0, "max_tokens": 300}
    assert stub.bodies == [expected]
    assert stub.headers[0]["authorization"] == f"Bearer {KEY}"


def test_fields_can_be_added_to_a_request_and_left_out(serve, completion):
    stub = serve(in_turn((200, completion("yes"))))
    ask(stub.url, key=None, extra={"max_tokens": None, "max_completion_tokens": 9})
    expected = {"model": "tiny", "messages": ASK, "temperature": 0, "max_completion_tokens": 9}
    assert stub.bodies == [expected]
    assert "authorization" not in stub.headers[0]


def test_too_many_requests_are_tried_again_as_late_as_the_server_asks(serve, completion):
    pauses: list[float] = []
    stub = serve(
        in_turn(
            (429, b"slow down", {"retry-after": "7"}),
            (429, b"slow down", {"retry-after": "9999"}),
            (429, b"slow down", {"retry-after": "Wed, 21 Oct 2026 07:28:00 GMT"}),
            (200, completion("at last")),
        )
    )
    assert ask(stub.url, pauses) == "at last"
    assert pauses[:2] == [7.0, 60.0]
    assert 2.0 <= pauses[2] <= 4.0


def test_a_server_that_keeps_failing_is_given_up_with_its_reason(serve):
    pauses: list[float] = []
    stub = serve(in_turn((500, b'{"error": {"message": "out of memory"}}')))
    with pytest.raises(AnswerError, match=r"127.0.0.1:\d+/v1: 500 \(out of memory\)"):
        ask(stub.url, pauses)
    assert len(stub.bodies) == 4
    assert all(later >= sooner for sooner, later in pairwise(pauses))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"<html>gateway</html>",
        b"[1, 2]",
        b"null",
        b'{"choices": []}',
        b'{"choices": [{"message": null}]}',
        b'{"choices": [{"message": {}}]}',
        b"[" * 100_000,
        b'{"error": {"message": null}}',
    ],
)
def test_what_is_no_completion_is_an_error_of_one_line(serve, content):
    stub = serve(in_turn((200, content)))
    with pytest.raises(AnswerError) as raised:
        ask(stub.url)
    assert "not the JSON of a chat completion" in str(raised.value)
    assert "\n" not in str(raised.value)
    assert len(str(raised.value)) < 400


@pytest.mark.parametrize(
    ("text", "reason", "said"),
    [(None, "length", "empty answer; raise --max-tokens"), ("  ", "stop", "an empty answer")],
)
def test_an_empty_answer_says_what_may_help(serve, completion, text, reason, said):
    stub = serve(in_turn((200, completion(text, reason))))
    with pytest.raises(AnswerError) as raised:
        ask(stub.url)
    assert str(raised.value).endswith(said)


def test_an_answer_in_parts_is_joined(serve, completion):
    parts = [{"type": "text", "text": "it "}, {"type": "text", "text": "is"}, "strange"]
    assert ask(serve(in_turn((200, completion(parts)))).url) == "it is"


@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_key_is_an_error_that_names_its_variable_and_not_the_key(serve, status):
    said = json.dumps({"error": {"message": f"Incorrect API key provided: {KEY}."}}).encode()
    stub = serve(in_turn((status, said)))
    with pytest.raises(ConfigError) as raised:
        ask(stub.url, key_variable="MY_KEY")
    assert "MY_KEY" in str(raised.value)
    assert "--key-variable" in str(raised.value)
    assert KEY not in str(raised.value)
    assert len(stub.bodies) == 1


def test_a_missing_key_is_said_to_be_missing(serve):
    stub = serve(in_turn((401, b"who are you?")))
    with pytest.raises(ConfigError, match="no key is set in OPENAI_API_KEY"):
        ask(stub.url, key=None)


def test_a_wrong_address_or_model_is_an_error_that_says_which_was_given(serve):
    stub = serve(in_turn((404, b'{"error": "no such model"}')))
    with pytest.raises(ConfigError, match=r"404 \(no such model\).*up to and with /v1.*tiny"):
        ask(stub.url)


def test_a_redirect_is_not_followed_with_the_key(serve, completion):
    thief = serve(in_turn((200, completion("stolen"))))
    stub = serve(in_turn((307, b"", {"location": thief.url + "/chat/completions"})))
    with pytest.raises(ConfigError, match="307"):
        ask(stub.url)
    assert not thief.bodies


def test_a_server_that_is_not_there_is_an_error_of_one_line_that_names_it():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/v1"
        with pytest.raises(ConfigError) as raised:
            ask(url, retries=1)
    assert url in str(raised.value)
    assert "is the server running" in str(raised.value)
    assert "\n" not in str(raised.value)


def test_an_answer_that_does_not_come_in_time_is_said(serve, completion):
    released = threading.Event()

    def slow(body):
        released.wait(10)
        return 200, completion("too late")

    stub = serve(slow)
    try:
        with pytest.raises(AnswerError, match=r"no answer within 0.2 s, 2 times; raise --timeout"):
            ask(stub.url, timeout=0.2, retries=1)
    finally:
        released.set()


def test_an_answer_that_drips_in_is_cut_off_in_time(raw):
    def drip(listening):
        connection, _ = listening.accept()
        with connection:
            connection.recv(1 << 16)
            connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n")
            pause = threading.Event()
            for _ in range(200):
                pause.wait(0.05)
                try:
                    connection.sendall(b" ")
                except OSError:
                    return

    with pytest.raises(AnswerError, match="no answer within"):
        ask(raw(drip), timeout=0.4, retries=0)


def test_an_answer_without_end_is_refused(serve):
    stub = serve(in_turn((200, b" " * (5 << 20))))
    with pytest.raises(AnswerError, match="more than 4 MiB"):
        ask(stub.url)


def test_a_broken_connection_is_tried_again_and_then_said(raw):
    def hang_up(listening):
        for _ in range(2):
            connection, _ = listening.accept()
            connection.recv(1 << 16)
            connection.close()

    with pytest.raises(AnswerError, match="the connection broke"):
        ask(raw(hang_up), retries=1)


@pytest.mark.parametrize(
    "url", ["localhost:8000/v1", "", "ftp://there/v1", "http://", "http://there:port/v1"]
)
def test_what_is_no_address_is_refused_with_an_example(url):
    with pytest.raises(ConfigError, match=r"--endpoint: given .* http://localhost:8000/v1"):
        Endpoint(url, "tiny")


def test_a_password_in_the_address_and_the_key_are_not_shown():
    endpoint = Endpoint("https://me:hidden@there/v1?token=hidden", "tiny", KEY)
    assert endpoint.shown == "https://there/v1"
    assert KEY not in repr(endpoint)


@pytest.mark.parametrize("key", ["sk-ünicode", "two\nlines"])
def test_a_key_that_cannot_be_a_header_is_refused_without_showing_it(key):
    with pytest.raises(ConfigError, match="MY_KEY: the key") as raised:
        Endpoint("https://there/v1", "tiny", key, "MY_KEY")
    assert key not in str(raised.value)


@pytest.mark.parametrize(
    ("url", "key", "unprotected"),
    [
        ("http://there/v1", KEY, True),
        ("http://there/v1", None, False),
        ("https://there/v1", KEY, False),
        ("http://localhost:8000/v1", KEY, False),
        ("http://127.0.0.1/v1", KEY, False),
    ],
)
def test_a_key_that_goes_unencrypted_over_a_network_is_known(url, key, unprotected):
    assert Endpoint(url, "tiny", key).unprotected is unprotected
