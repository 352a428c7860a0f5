"""What of Gradio's server is open: the page, its queue and the visitors' own files, and nothing that calls others.

Gradio's server has more routes than a page needs. Some fetch a URL that a visitor names, write recordings, or talk to
the Hub. Here a request passes if it is one that the page itself makes, and is answered by 404 otherwise. A policy in
each answer keeps the browser, too, from asking any other server.
"""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

READ = re.compile(
    r"/|/(config|theme\.css|favicon\.ico|manifest\.json|robots\.txt)/?|/(assets|static|svelte)/.*"
    r"|/gradio_api/((info|app_id|startup-events|theme\.css|user|login_check)/?|queue/(data|status)|upload_progress"
    r"|heartbeat/[\w-]+|file=.*)",
    re.S,
)
WRITTEN = re.compile(r"/gradio_api/(queue/join|cancel|reset|upload)/?")
UPLOAD = "/gradio_api/upload"
URL = re.compile(r"\s*(file=)?/*\s*[a-z][a-z0-9+.-]*:/", re.I)
POLICY = (
    "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; object-src 'none'; base-uri 'self'; "
    "form-action 'self'"
)
MOST_TEXT = 4_000_000  # bytes of what is not a file: the names of ten thousand classes are a twentieth of it


class Door:
    """ASGI middleware that lets pass what the page needs.

    Args:
        app (`Callable`): What stands behind it.
        max_upload (`int`): Bytes of what is uploaded at once.

    Example:
        >>> door = Door(app=None, max_upload=1000)
        >>> door.is_open("GET", "/gradio_api/file=uploads/cat.png"), door.is_open("GET", "/gradio_api/file=http://a/b")
        (True, False)
        >>> door.is_open("POST", "/gradio_api/queue/join"), door.is_open("POST", "/gradio_api/process_recording")
        (True, False)
    """

    def __init__(self, app: Any, max_upload: int):
        self.app = app
        self.max_upload = max_upload

    def is_open(self, method: str, path: str) -> bool:
        """Whether a request is one that the page makes."""
        if method in ("GET", "HEAD"):
            _, is_file, place = path.partition("/gradio_api/file=")
            return READ.fullmatch(path) is not None and not (is_file and URL.match(place))
        if method == "OPTIONS":
            return True
        return method == "POST" and WRITTEN.fullmatch(path) is not None

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        path = scope["path"].removeprefix(scope.get("root_path", "")) or "/"
        if scope["type"] != "http" or not self.is_open(scope["method"], path):
            await _refuse(send, 404, "There is no such page.")
            return

        most = self.max_upload if path.startswith(UPLOAD) else MOST_TEXT
        if _length(scope) > most:
            await _refuse(send, 413, f"That is more than {most / 1e6:g} MB, which is the most that this page takes.")
            return
        if scope["method"] == "POST" and not path.startswith(UPLOAD):
            body = await _read(receive, most)
            if body is None:
                await _refuse(send, 413, f"That is more than {most / 1e6:g} MB.")
                return
            if names_url(body):
                await _refuse(send, 403, "Files are uploaded here, and not fetched from elsewhere.")
                return
            receive = _again(body, receive)
        await self.app(scope, receive, _with_policy(send))


def names_url(body: bytes) -> bool:
    """Whether a request names a file by a URL, which Gradio would then fetch.

    Example:
        >>> names_url(b'{"data": [{"path": "http://10.0.0.1/secret", "meta": {"_type": "gradio.FileData"}}]}')
        True
        >>> names_url(b'{"data": ["a text with http://a/b", {"path": "uploads/cat.png"}]}')
        False
    """
    try:
        left = [json.loads(body)]
    except (ValueError, RecursionError):
        return False  # of which Gradio says what is wrong
    while left:
        value = left.pop()
        if isinstance(value, dict):
            if isinstance(value.get("path"), str) and URL.match(value["path"]):
                return True
            left += value.values()
        elif isinstance(value, list):
            left += value
    return False


def _length(scope: Message) -> int:
    for name, value in scope["headers"]:
        if name.lower() == b"content-length" and value.isdigit():
            return int(value)
    return 0


async def _read(receive: Receive, most: int) -> bytes | None:
    """The body of a request; `None` if it is longer than it may be."""
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if len(body) > most:
            return None
        if not message.get("more_body"):
            return body


def _again(body: bytes, receive: Receive) -> Receive:
    """Gives a body that was read once more, and then what comes after it."""
    bodies = [body]

    async def give() -> Message:
        if bodies:
            return {"type": "http.request", "body": bodies.pop(), "more_body": False}
        return await receive()

    return give


def _with_policy(send: Send) -> Send:
    async def give(message: Message) -> None:
        if message["type"] == "http.response.start":
            own = [
                (b"content-security-policy", POLICY.encode()),
                (b"referrer-policy", b"no-referrer"),
                (b"x-content-type-options", b"nosniff"),
            ]
            message = {**message, "headers": [*message.get("headers", []), *own]}
        await send(message)

    return give


async def _refuse(send: Send, status: int, text: str) -> None:
    body = text.encode()
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
