"""The Hub of the tests refuses what the real one refuses."""

import hashlib
import json
import urllib.error
import urllib.request

from support.hub_server import READER, TOKEN


def test_the_hub_of_these_tests_lets_nothing_pass(hub):
    content = b"weights"
    entry = {"oid": hashlib.sha256(content).hexdigest(), "size": len(content)}
    hub.put("user/clip", {}, private=True)
    body = {"operation": "upload", "transfers": ["basic"], "objects": [entry], "hash_algo": "sha256"}

    def ask(method, url, data, token=None):
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        request = urllib.request.Request(url, data, headers, method=method)
        try:
            with urllib.request.urlopen(request) as response:
                return response.status, response.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()

    batch = f"{hub.url}/user/clip.git/info/lfs/objects/batch"
    assert [ask("POST", batch, json.dumps(body).encode(), token)[0] for token in (None, READER)] == [401, 403]
    assert ask("GET", f"{hub.url}/user/clip/resolve/main/config.json", None)[0] == 401
    _, answer = ask("POST", batch, json.dumps(body).encode(), TOKEN)
    address = json.loads(answer)["objects"][0]["actions"]["upload"]["href"]
    assert hub.problems == []
    assert ask("PUT", address, b"wrights")[0] == 400 and "an upload of 7 bytes that is not" in hub.problems.pop()
    assert ask("PUT", address, content + b"!")[0] == 400 and "an upload of 8 bytes" in hub.problems.pop()
    assert ask("PUT", address, content, TOKEN)[0] == 200 and "the token went to storage" in hub.problems.pop()
    assert ask("GET", f"{hub.url}/api/models", None, TOKEN)[0] == 404 and "an unknown route" in hub.problems.pop()
    line = {"key": "lfsFile", "value": {"path": "x", "algo": "sha256", "oid": "0" * 64, "size": 7}}
    lines = json.dumps({"key": "header", "value": {"summary": ""}}) + "\n" + json.dumps(line)
    assert ask("POST", f"{hub.url}/api/models/user/clip/commit/main", lines.encode(), TOKEN)[0] == 400
    assert "x was committed but never uploaded" in hub.problems.pop()
