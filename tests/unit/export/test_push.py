"""Against a server on this machine that speaks the part of the hub's protocol which an upload needs."""

import base64
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from optical_scale.cli.main import main
from optical_scale.errors import ExportError
from optical_scale.export.push import push, require_token
from tests.support.processes import ROOT, environment
from tests.unit.export.checkpoints import step_folder


class Hub(BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        seen = self.server.seen
        if self.path == "/api/validate-yaml":
            seen["card"] = json.loads(body)["content"]
            return self.answer({"errors": [], "warnings": []})
        if self.headers["Authorization"] != "Bearer secret":
            return self.answer({"error": "Invalid credentials"}, 401)
        if self.path == "/api/repos/create":
            seen["created"] = json.loads(body)
            return self.answer({"url": f"{self.server.url}/me/model"})
        if "/preupload/" in self.path:
            files = json.loads(body)["files"]
            return self.answer(
                {"files": [{"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in files]}
            )
        if "/commit/" in self.path:
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    seen["files"][line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            return self.answer({"commitUrl": f"{self.server.url}/me/model/commit/1", "commitOid": "1"})
        return self.answer({"error": f"unexpected {self.path}"}, 404)

    def do_GET(self):
        self.answer({"error": f"unexpected {self.path}"}, 404)

    def answer(self, value, status=200):
        data = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *words):
        pass


@pytest.fixture
def hub():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.url = f"http://127.0.0.1:{server.server_port}"
    server.seen = {"files": {}}
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def files_of(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_every_file_arrives_in_a_private_repository(hub, tmp_path):
    (tmp_path / "model" / "2_Dense").mkdir(parents=True)
    for name in ("README.md", "config.json", "2_Dense/model.safetensors"):
        (tmp_path / "model" / name).write_text(f"---\ntags: [x]\n---\n{name}")
    assert push(tmp_path / "model", "me/model", endpoint=hub.url, token="secret") == f"{hub.url}/me/model"
    created = hub.seen["created"]
    # Releases of huggingface_hub say it in one of two ways.
    assert created.get("visibility") == "private" or created.get("private") is True
    assert hub.seen["files"] == files_of(tmp_path / "model")


def test_refused(hub, tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ExportError, match=r"is complete, but could not be uploaded to me/model: .*; repeat that part"):
        push(tmp_path, "me/model", endpoint=hub.url, token="wrong")
    assert hub.seen["files"] == {}


def test_the_verb_exports_proves_and_pushes(hub, runs, tmp_path):
    import subprocess
    import sys

    command = ["export", step_folder(runs["stage0"]), "--output", tmp_path / "out", "push_to=me/model"]
    given = environment() | {"HF_ENDPOINT": hub.url, "HF_TOKEN": "secret"}
    words = [sys.executable, "-m", "optical_scale", *map(str, command)]
    done = subprocess.run(words, env=given, cwd=ROOT, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    assert f"pushed to {hub.url}/me/model" in done.stdout
    assert done.stderr.count("largest difference") + done.stdout.count("largest difference") == 1
    assert hub.seen["files"] == files_of(tmp_path / "out")
    assert hub.seen["card"].startswith("---\nlanguage:")


def test_without_a_token_nothing_begins(runs, tmp_path, monkeypatch, capsys):
    import huggingface_hub.constants

    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.delenv("HUGGING_FACE_HUB_TOKEN", raising=False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    with pytest.raises(ExportError, match="no token for the hub; run `hf auth login`"):
        require_token()
    assert main(["export", str(runs["stage0"]), "--output", str(tmp_path / "o"), "push_to=me/model"]) == 2
    assert main(["export", str(runs["stage0"]), "--output", str(tmp_path / "o"), "push_to=model"]) == 2
    messages = capsys.readouterr().err
    assert "no token for the hub" in messages
    assert "push_to" in messages
    assert list(tmp_path.iterdir()) == []
