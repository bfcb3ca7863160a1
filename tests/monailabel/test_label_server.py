"""The documented command line: a server of two worker processes, asked by several annotators at once."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from label_data import NAMES, make_studies, small_bundle

pytest.importorskip("monailabel.interfaces", reason="MONAI Label is not installed: tests/monailabel/requirements.txt")

import requests

pytestmark = pytest.mark.monailabel

NAME = NAMES["mr"]
SECONDS_TO_START = 300  # two processes import torch and MONAI, and a third scores
OURS = ("MONAI_LABEL_AUTO_UPDATE_SCORING", "MONAI_LABEL_DATASTORE_AUTO_RELOAD")


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Server:
    """``monailabel start_server`` with two workers, as the guide has it."""

    def __init__(self, app, studies):
        self.log = app / "server.log"
        self.port = free_port()
        command = ["start_server", "--app", app, "--studies", studies.root, "--host", "127.0.0.1", "--port", self.port]
        conf = ["--conf", "models", NAME, "--conf", "zoo_source", "local", "--conf", "sam2", "false"]
        words = [str(word) for word in (*command, *conf, "--workers", 2)]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "monailabel.main", *words],
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=app,
                env={name: value for name, value in os.environ.items() if name not in OURS},
                start_new_session=True,
            )

    def call(self, method, path, **kwargs):
        return requests.request(method, f"http://127.0.0.1:{self.port}{path}", timeout=120, **kwargs)

    def next_image(self, client):
        answer = self.call("post", f"/activelearning/{NAME}", json={"client_id": client})
        assert answer.status_code == 200, answer.text
        return answer.json()

    def wait(self, condition, what):
        end = time.monotonic() + SECONDS_TO_START
        while time.monotonic() < end and self.process.poll() is None:
            if condition():
                return
            time.sleep(0.5)
        pytest.fail(f"{what} did not come; the server's log ends with\n{self.log.read_text()[-5000:]}")

    def is_up(self):
        try:
            return self.call("get", "/info/").status_code == 200
        except requests.ConnectionError:
            return False

    def stop(self):
        os.killpg(self.process.pid, signal.SIGTERM)
        try:
            self.process.wait(60)
        finally:
            if self.process.poll() is None:
                os.killpg(self.process.pid, signal.SIGKILL)


@pytest.fixture
def server(phantoms, tmp_path):
    app = tmp_path / "app"
    small_bundle("mr", app / "model")
    (app / "main.py").write_text("from svgd_monai.monailabel.app import CommitteeApp  # noqa: F401\n")
    studies = make_studies(phantoms["mr"], tmp_path / "studies")
    server = Server(app, studies)
    server.studies = studies
    try:
        yield server
    finally:
        server.stop()


def test_a_server_of_two_processes_scores_by_itself_and_never_hands_out_an_image_twice(server):
    studies = server.studies
    server.wait(server.is_up, "the server")

    def scored():
        content = json.loads((studies.root / "datastore_v2.json").read_text() or "{}")
        infos = {image: entry["image"]["info"] for image, entry in content.get("objects", {}).items()}
        return sum(f"svgd_monai_{NAME}" in info for info in infos.values()) == len(studies.unlabelled)

    server.wait(scored, "the scores that MONAI Label asks for at its start")
    clients = [f"annotator {number}" for number in range(len(studies.unlabelled))]
    with ThreadPoolExecutor(len(clients)) as pool:
        handed = dict(zip(clients, pool.map(server.next_image, clients), strict=True))
    assert sorted(found["id"] for found in handed.values()) == sorted(studies.unlabelled)
    assert sorted(found["rank"] for found in handed.values()) == [1, 2, 3, 4, 5]
    assert server.next_image("one too many") == {}

    image = handed[clients[0]]["id"]
    assert server.next_image(clients[0])["id"] == image
    label = studies.phantom / f"labelsTr/{image}.nii.gz"
    with label.open("rb") as file:
        answer = server.call("put", "/datastore/label", params={"image": image, "tag": "final"}, files={"label": file})
    assert answer.status_code == 200, answer.text
    for client in [*clients, "one too many"] * 2:  # whichever process answers
        assert server.next_image(client).get("id") != image
