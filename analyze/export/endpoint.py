"""Asks a language model behind an OpenAI-compatible address: POST .../chat/completions.

What may pass (429, 5xx, a broken connection, no answer in time) is tried again, with pauses that
double or are as long as the server asks for. The key goes into one header and nowhere else; what a
server says is shortened, cleared of control characters and of the key before it is shown or kept.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from threading import Event
from typing import Any, TypedDict

import httpx

from analyze.export.answers import clean
from pipeline.errors import ConfigError

AGAIN = (408, 409, 425, 429, 500, 502, 503, 504, 529)
LARGEST_ANSWER = 4 << 20  # bytes: whatever is longer is no answer
LONGEST_PAUSE = 60.0  # seconds


class Message(TypedDict):
    """One message of a chat, as the interface names its fields."""

    role: str
    content: str


class AnswerError(Exception):
    """One request got no usable answer; others may. One line."""


@dataclass(frozen=True)
class Endpoint:
    """Where and how to ask.

    url: up to and with /v1; key: None to send none; key_variable: where it came from, for messages;
    timeout: seconds for one request, all of it; retries: tries after the first; extra: fields of
    the request to add, or with None to leave out.
    """

    url: str
    model_name: str
    key: str | None = field(default=None, repr=False)
    key_variable: str = "OPENAI_API_KEY"
    timeout: float = 60.0
    retries: int = 4
    max_tokens: int = 300
    extra: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        try:
            parsed = httpx.URL(self.url)
        except (httpx.InvalidURL, TypeError):
            parsed = httpx.URL("")
        if parsed.scheme not in ("http", "https") or not parsed.host:
            raise ConfigError(
                f"--endpoint: given {clean(self.url, 200)!r}; give an address such as "
                "http://localhost:8000/v1"
            )
        if self.key is not None and not (self.key.isascii() and self.key.isprintable()):
            raise ConfigError(
                f"{self.key_variable}: the key in this environment variable has characters that "
                "no key has; set it again"
            )

    @property
    def shown(self) -> str:
        """The address without what may be a password in it."""
        url = httpx.URL(self.url)
        return str(url.copy_with(userinfo=b"", query=None, fragment=None))

    @property
    def unprotected(self) -> bool:
        """Whether a key would go over a network that anybody on the way can read."""
        url = httpx.URL(self.url)
        return self.key is not None and url.scheme == "http" and not _is_local(url.host)


class Chat:
    """An open connection, for several threads. Close it."""

    def __init__(self, endpoint: Endpoint, pause: Callable[[float], object] | None = None) -> None:
        self._endpoint = endpoint
        self.stop = Event()
        self._pause = pause or self.stop.wait
        headers = {} if endpoint.key is None else {"Authorization": f"Bearer {endpoint.key}"}
        self._client = httpx.Client(timeout=endpoint.timeout, headers=headers)
        base = httpx.URL(endpoint.url)
        self._url = base.copy_with(path=base.path.rstrip("/") + "/chat/completions")

    def close(self) -> None:
        """Closes the connections; pauses and tries of other threads end."""
        self.stop.set()
        self._client.close()

    def ask(self, messages: list[Message]) -> str:
        """The model's answer, of one line or several.

        Raises AnswerError if there is none to this request, ConfigError if there can be none to
        any: no server, no such address, no permission.
        """
        known = self._endpoint
        body = {"model": known.model_name, "messages": messages, "temperature": 0}
        body = {**body, "max_tokens": known.max_tokens, **known.extra}
        body = {name: value for name, value in body.items() if value is not None}
        for tried in range(known.retries + 1):
            last = tried == known.retries or self.stop.is_set()
            try:
                status, headers, content = self._post(body)
            except httpx.RequestError as error:
                if last:
                    raise self._unreachable(error) from None
                self._pause(_pause_after(tried, None))
                continue
            if status == 200:
                return self._text(content)
            if status not in AGAIN or last:
                raise self._refused(status, content)
            self._pause(_pause_after(tried, headers.get("retry-after")))
        raise AssertionError("every path of the last try returns or raises")

    def _post(self, body: dict[str, Any]) -> tuple[int, httpx.Headers, bytes]:
        """Status, headers and content, which must come in time and not be endless."""
        until, pieces, size = time.monotonic() + self._endpoint.timeout, [], 0
        with self._client.stream("POST", self._url, json=body) as response:
            for piece in response.iter_bytes():
                pieces.append(piece)
                size += len(piece)
                if size > LARGEST_ANSWER:
                    raise AnswerError(f"{self._endpoint.shown}: answers with more than 4 MiB")
                if time.monotonic() > until:
                    raise httpx.ReadTimeout("the answer is not complete in time")
            return response.status_code, response.headers, b"".join(pieces)

    def _text(self, content: bytes) -> str:
        """The content of the first choice. Raises AnswerError for anything else."""
        where = self._endpoint.shown
        try:
            choice = json.loads(content)["choices"][0]
            text, reason = choice["message"]["content"], choice.get("finish_reason")
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
            raise AnswerError(
                f"{where}: not the JSON of a chat completion: {self._said(content)}"
            ) from None
        if isinstance(text, list):
            text = "".join(str(p.get("text", "")) for p in text if isinstance(p, dict))
        if not isinstance(text, str) or not text.strip():
            remedy = "; raise --max-tokens" if reason == "length" else ""
            raise AnswerError(f"{where}: an empty answer{remedy}")
        return text.replace(self._endpoint.key, "***") if self._endpoint.key else text

    def _unreachable(self, error: httpx.RequestError) -> Exception:
        known = self._endpoint
        if isinstance(error, httpx.TimeoutException) and not isinstance(
            error, httpx.ConnectTimeout
        ):
            return AnswerError(
                f"{known.shown}: no answer within {known.timeout:g} s, "
                f"{known.retries + 1} times; raise --timeout or lower --parallel"
            )
        if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout | httpx.ProxyError):
            return ConfigError(
                f"--endpoint: {known.shown}: cannot be reached ({self._said(str(error))}); is the "
                "server running, and is this its address, up to and with /v1?"
            )
        return AnswerError(f"{known.shown}: the connection broke ({self._said(str(error))})")

    def _refused(self, status: int, content: bytes) -> Exception:
        known = self._endpoint
        line = f"{known.shown}: {status} ({self._said(content)})"
        if status in (401, 403):
            have = "the key in" if known.key else "no key is set in"
            return ConfigError(
                f"--endpoint: {line}; {have} {known.key_variable}: export a valid one, or name "
                "another variable with --key-variable"
            )
        if status in (301, 302, 303, 307, 308, 404, 405):
            return ConfigError(
                f"--endpoint: {line}; give the address up to and with /v1, and with --model-name a "
                f"model that it has (given {known.model_name})"
            )
        return AnswerError(line)

    def _said(self, content: bytes | str) -> str:
        """What a server or a library said, short enough for a line."""
        text = content.decode("utf-8", "replace") if isinstance(content, bytes) else content
        try:
            error = json.loads(text)["error"]
            text = error["message"] if isinstance(error, dict) else str(error)
        except (ValueError, LookupError, TypeError, RecursionError):
            pass
        if self._endpoint.key:
            text = str(text).replace(self._endpoint.key, "***")
        return clean(str(text), 200) or "no reason given"


def _pause_after(tried: int, asked: str | None) -> float:
    """Seconds to wait: what the server asked for, else 1, 2, 4, ... times 0.5 to 1."""
    try:
        return min(LONGEST_PAUSE, max(0.0, float(asked or "")))
    except ValueError:
        return min(LONGEST_PAUSE, 2.0**tried) * random.uniform(0.5, 1.0)


def _is_local(host: str) -> bool:
    return host in ("localhost", "::1") or host.startswith("127.")
