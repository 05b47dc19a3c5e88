"""Downloads from a hub: a local server that speaks the part of its protocol that is used."""

import json
import re
import time
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from types import SimpleNamespace

import huggingface_hub
import pytest
from huggingface_hub import constants, errors, file_download

from jalign.models import hub

COMMIT = "c" * 40


class Server:
    """Serves `files` as the model some/model.

    Attributes:
      requests: (name, Range header) of every download.
      breaks: name -> how many downloads of it end early.
      sent_bytes: before they do.
    """

    def __init__(self, files):
        self.files, self.requests, self.breaks, self.sent_bytes = files, [], {}, 0
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                pass

            def do_HEAD(self):
                self._answer(False)

            def do_GET(self):
                self._answer(True)

            def _answer(self, body):
                path = self.path.split("?")[0]
                if path.startswith("/api/models/some/model/tree"):
                    entries = [
                        {"type": "file", "path": n, "size": len(c), "oid": sha256(c).hexdigest()}
                        for n, c in outer.files.items()
                    ]
                    return self._send(200, json.dumps(entries).encode(), body)
                if path.startswith("/api/models/some/model"):
                    siblings = [{"rfilename": n} for n in outer.files]
                    info = {"id": "some/model", "sha": COMMIT, "siblings": siblings}
                    return self._send(200, json.dumps(info).encode(), body)
                name = re.fullmatch(r"/some/model/resolve/\w+/(.*)", path)
                if not name:
                    return self._send(404, b"", body, {"X-Error-Code": "RepoNotFound"})
                content, asked = outer.files[name[1]], self.headers.get("Range")
                headers = {"ETag": f'"{sha256(content).hexdigest()}"', "X-Repo-Commit": COMMIT}
                if not body:
                    return self._send(200, content, False, headers)
                outer.requests.append((name[1], asked))
                start = int(re.search(r"(\d+)-", asked)[1]) if asked else 0
                if outer.breaks.get(name[1], 0) > 0:
                    outer.breaks[name[1]] -= 1
                    self._send(206 if asked else 200, content[start:], False, headers)
                    self.wfile.write(content[start : start + outer.sent_bytes])
                    self.wfile.flush()
                    self.close_connection = True
                    return None
                return self._send(206 if asked else 200, content[start:], True, headers)

            def _send(self, status, content, body, headers=None):
                self.send_response(status)
                for name, value in {"Content-Length": str(len(content)), **(headers or {})}.items():
                    self.send_header(name, value)
                self.end_headers()
                if body:
                    self.wfile.write(content)

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self):
        self._server.shutdown()
        self._server.server_close()


FILES = {
    "config.json": b"{}",
    "model-00001-of-00002.safetensors": bytes(range(256)) * 400,
    "model-00002-of-00002.safetensors": bytes(reversed(range(256))) * 400,
    "consolidated.safetensors": b"the same again",
    "original/model.safetensors": b"the same again",
    "pytorch_model.bin": b"a pickle",
}
FIRST, SECOND = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"


@pytest.fixture
def server(tmp_path, monkeypatch):
    server = Server(FILES)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", server.url)
    monkeypatch.setattr(
        constants,
        "HUGGINGFACE_CO_URL_TEMPLATE",
        server.url + "/{repo_id}/resolve/{revision}/{filename}",
    )
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1024)
    monkeypatch.setattr(
        file_download, "time", SimpleNamespace(sleep=lambda _: None, time=time.time)
    )
    yield server
    server.close()


def test_a_broken_connection_is_resumed_where_it_broke(server):
    server.breaks, server.sent_bytes = {SECOND: 2}, 25 * 1024
    folder = hub.find("some/model")
    assert (folder / SECOND).read_bytes() == FILES[SECOND]
    ranges = [asked for name, asked in server.requests if name == SECOND]
    assert ranges == [None, "bytes=25600-", "bytes=51200-"]
    # neither pickles nor the same weights again
    assert {name for name, _ in server.requests} == {"config.json", FIRST, SECOND}


def test_a_download_that_stops_says_so_and_goes_on_with_what_is_missing(server):
    server.breaks = {SECOND: 100}
    with pytest.raises(OSError, match=r"download of some/model is not complete.*same command"):
        hub.find("some/model")
    server.breaks, server.requests = {}, []
    assert (hub.find("some/model") / SECOND).read_bytes() == FILES[SECOND]
    assert {name for name, _ in server.requests} == {SECOND}


def answer(status):
    return errors.HfHubHTTPError(f"{status}", response=SimpleNamespace(headers={}, request=None))


@pytest.mark.parametrize(
    ("error", "kind", "why"),
    [
        (errors.HTTPError("the peer closed the connection"), OSError, "is not complete"),
        (ConnectionResetError("reset"), OSError, "is not complete"),
        (errors.IncompleteSnapshotError("some files", "here"), OSError, "is not complete"),
        (errors.XetDownloadError("a chunk"), OSError, "is not complete"),
        (answer(403), OSError, "some/model cannot be downloaded .HfHubHTTPError: 403"),
        (OSError(28, "No space left on device"), OSError, "some/model cannot be .*No space left"),
        (errors.LocalEntryNotFoundError("no snapshot"), ValueError, "neither a folder here nor"),
    ],
    ids=lambda x: type(x).__name__ if isinstance(x, Exception) else "",
)
def test_only_a_download_that_broke_off_is_said_to_go_on(error, kind, why, monkeypatch):
    def failing(*_, **__):
        raise error

    monkeypatch.setattr(huggingface_hub, "snapshot_download", failing)
    with pytest.raises(kind, match=why) as raised:
        hub.find("some/model")
    assert ("same command continues" in str(raised.value)) == (why == "is not complete")
