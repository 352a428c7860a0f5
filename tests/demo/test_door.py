"""What of the server is open: nothing that reads other files, asks other servers, or writes more than it must."""

import re
import secrets
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from support.demo import NAMES, TEMPLATE, Visitor, ask, tiny_page

from hf_pmgaft.demo.door import POLICY, Door

pytest.importorskip("gradio")
httpx = pytest.importorskip("httpx")  # which Gradio brings


@pytest.fixture(scope="module")
def connections() -> set:
    """The machines that this process was told to talk to."""
    return set()


@pytest.fixture(scope="module")
def server(tmp_path_factory, connections):
    def watched(function, place):
        def call(*args, **kwargs):
            connections.add(str(args[place][0] if isinstance(args[place], tuple) else args[place]))
            return function(*args, **kwargs)

        return call

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", watched(socket.socket.connect, 1))
        patch.setattr(socket, "getaddrinfo", watched(socket.getaddrinfo, 0))
        with tiny_page(tmp_path_factory.mktemp("page")) as server:
            yield server


@pytest.fixture
def elsewhere():
    """Another server on this machine, and what it was asked for."""
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_response(200)
            self.end_headers()

        do_HEAD = do_POST = do_GET

        def log_message(self, *_):
            pass

    other = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=other.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{other.server_port}/cat.png", asked
    other.shutdown()
    other.server_close()


# ---- Nothing leaves the machine ----


def test_the_server_talks_to_nobody_but_its_visitors(server, connections):
    visitor = Visitor(server.address)
    visitor.attack(visitor.draw(1))
    assert connections <= {"127.0.0.1", "localhost", "None"} and "127.0.0.1" in connections


def test_the_page_asks_no_other_server(server):
    page = httpx.get(server.address)
    assert page.headers["content-security-policy"] == POLICY and "http" not in POLICY
    fetched = re.findall(r"""<(?:script|link|img|iframe)[^>]*(?:src|href)=["']([^"']+)""", page.text)
    styles = [httpx.get(server.address + "theme.css").text]
    styles += [httpx.get(server.address + url.removeprefix("./")).text for url in fetched if url.endswith(".css")]
    assert len(fetched) > 2 and len(styles) > 1
    for style in styles:
        fetched += re.findall(r"""(?:url\(|@import)\s*["']?([^"')]+)""", style)
    outside = [url for url in fetched if re.match(r"(?:\w+:)?//", url)]
    assert outside == []
    assert httpx.get(server.address + "config").json()["analytics_enabled"] is False


def test_a_url_in_place_of_a_file_is_not_fetched(server, elsewhere):
    url, asked = elsewhere
    file = {"path": url, "url": url, "orig_name": "cat.png", "meta": {"_type": "gradio.FileData"}}
    for data in ([file, NAMES, TEMPLATE, None], [None, {"nested": [file]}, TEMPLATE, None]):
        answer = ask(server.address, "classify", data)
        assert answer["status"] == 403 and "not fetched" in answer["text"]
    for path in (f"file={url}", f"proxy={url}", f"file/{url}", f"file=%20{url}"):
        assert httpx.get(f"{server.address}gradio_api/{path}").status_code in (403, 404)
    assert asked == []


@pytest.mark.parametrize(
    "method, path",
    [
        ("GET", "monitoring"),
        ("GET", "monitoring/summary"),
        ("GET", "gradio_api/runs"),
        ("GET", "gradio_api/run-history/buckets"),
        ("GET", "gradio_api/deep_link?session_hash=x"),
        ("GET", "gradio_api/openapi.json"),
        ("POST", "gradio_api/process_recording"),
        ("POST", "gradio_api/vibe-edit"),
        ("POST", "gradio_api/component_server"),
        ("POST", "gradio_api/run/classify"),
        ("POST", "gradio_api/call/classify"),
        ("POST", "login"),
        ("PUT", "gradio_api/upload"),
        ("DELETE", ""),
    ],
)
def test_what_the_page_does_not_need_is_closed(server, method, path):
    answer = httpx.request(method, server.address + path, json={} if method == "POST" else None)
    assert (answer.status_code, answer.text) == (404, "There is no such page.")


def test_a_long_request_is_refused_before_it_is_read(server):
    body = b'{"data": ["' + b"x" * 5_000_000 + b'"]}'
    headers = {"content-type": "application/json"}
    assert httpx.post(f"{server.address}gradio_api/queue/join", content=body, headers=headers).status_code == 413

    def in_pieces():
        yield from (body[i : i + 100_000] for i in range(0, len(body), 100_000))

    answer = httpx.post(f"{server.address}gradio_api/queue/join", content=in_pieces(), headers=headers)
    assert answer.status_code == 413


def test_a_page_below_another_address_is_open_too():
    assert Door(None, 1).is_open("GET", "/") and not Door(None, 1).is_open("GET", "/x")


# ---- No file is read ----


@pytest.fixture
def secret(tmp_path) -> Path:
    (tmp_path / "secret.txt").write_text("secret")
    return tmp_path / "secret.txt"


def test_no_file_of_the_machine_is_served(server, secret, monkeypatch):
    monkeypatch.chdir(secret.parent)
    places = ["/etc/passwd", str(secret), "secret.txt", "./secret.txt", f"{server.folder}/../{secret.name}"]
    places += [f"{server.folder}/%2e%2e/%2e%2e{secret}", f"{server.folder}/..%2f..{secret}", "//etc/passwd", ""]
    places += ["file:///etc/passwd", str(server.folder), f"{server.folder}/", str(server.folder.parent)]
    for place in places:
        answer = httpx.get(f"{server.address}gradio_api/file={place}")
        assert answer.status_code in (403, 404), place
        assert "secret" not in answer.text.replace("secret.txt", "")


def test_files_of_other_visitors_cannot_be_guessed(server):
    mine = Path(server.folder)
    listed = [place for place in mine.iterdir() if place.is_dir()]
    assert all(len(place.name) >= 32 for place in listed if place.name != "vibe_edit_history")
    for guess in (secrets.token_hex(16), "*", "0" * 64):
        assert httpx.get(f"{server.address}gradio_api/file={mine}/{guess}/row-0.png").status_code in (403, 404)


@pytest.mark.parametrize("place", ["/etc/passwd", "pyproject.toml", "../../etc/passwd"])
def test_no_file_of_the_machine_is_taken_for_an_upload(server, secret, place):
    for path in (place, str(secret)):
        file = {"path": path, "orig_name": "cat.png", "meta": {"_type": "gradio.FileData"}}
        answer = ask(server.address, "classify", [file, NAMES, TEMPLATE, None])
        assert answer["status"] == 200 and not answer["success"] and "root:" not in str(answer)
        without_mark = {"path": path, "orig_name": "cat.png"}
        assert not ask(server.address, "classify", [without_mark, NAMES, TEMPLATE, None])["success"]
