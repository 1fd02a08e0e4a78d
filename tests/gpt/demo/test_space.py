"""The demo as a Space: laid out, pushed to the loopback Hub, and started from its own folder by the model's name alone."""

import json
import os
import re
import signal
import subprocess
import sys
import urllib.request
from importlib.util import find_spec

import pytest
from loopback_env import CACHE, HUB, URL

from fields.storage.dataset import WeightDataset
from gpt.demo.options import PublishDemo
from gpt.demo.space import UNUSED, publish_demo, requirements
from gpt.hub import publish_model
from gpt.publishing import PublishModel, parse


@pytest.fixture
def published(home, tmp_path, monkeypatch):
    """The toy model and its fields on the loopback Hub."""
    HUB.reset()
    monkeypatch.chdir(tmp_path)
    WeightDataset.load(home / "fields").push_to_hub("tester/fields")
    publish_model(PublishModel(home / "gpt", "tester/gpt"))
    return tmp_path


def test_a_space_is_laid_out_and_pushed(published):
    options = parse(["demo", "tester/gpt", "tester/demo", "--fields", "tester/fields"])
    assert isinstance(options, PublishDemo)
    sent = publish_demo(options)
    assert sent.url.endswith("/spaces/tester/demo")
    files = HUB.files("space", "tester/demo")
    card = files["README.md"].decode()
    assert "sdk: gradio" in card and "app_file: app.py" in card and "- tester/gpt" in card
    assert "model='tester/gpt', fields='tester/fields'" in files["app.py"].decode()
    assert {"fields/model.py", "tokenizers/registry.py", "gpt/demo/app.py"} <= set(files)
    assert not any("__pycache__" in path or path.endswith(".md") for path in files if "/" in path)
    assert json.loads(files["space.json"])["model"] == "tester/gpt"
    assert publish_demo(options).files == 0  # the same again: nothing to send
    wanted = files["requirements.txt"].decode().split()
    assert wanted == requirements() and any(line.startswith("gradio>=") for line in wanted)


def test_a_folder_is_no_published_model():
    with pytest.raises(ValueError, match="user/name"):
        PublishDemo("runs/digits/best/gpt", "tester/demo")


@pytest.mark.slow
@pytest.mark.skipif(find_spec("gradio") is None, reason="no Gradio: pip install -e '.[demo]'")
def test_a_dry_run_starts_from_its_own_folder(published):
    publish_demo(PublishDemo("tester/gpt", "tester/demo", fields="tester/fields", dry_run=True))
    folder = published / "runs" / "hub" / "tester" / "demo"
    hidden = [name.replace("-", "_") for name in UNUSED if name != "libigl"] + ["igl"]
    lines = f"import sys; sys.modules.update(dict.fromkeys({hidden!r})); import runpy; sys.path.insert(0, '.')\n"
    lines += "runpy.run_path('app.py', run_name='__main__')"
    env = {**os.environ, "PORT": "0", "OMP_NUM_THREADS": "1", "HF_ENDPOINT": URL, "HF_HOME": f"{CACHE}-space"}
    env.pop("PYTHONPATH", None)
    command = [sys.executable, "-c", lines]
    with subprocess.Popen(command, cwd=folder, env=env, stdout=subprocess.PIPE, text=True) as served:
        try:
            line = served.stdout.readline()
            while line and "shows" not in line:
                line = served.stdout.readline()
            address = re.search(r"http://\S+:(\d+)/", line)
            with urllib.request.urlopen(f"http://127.0.0.1:{address.group(1)}/", timeout=120) as page:
                assert "New fields of tester/gpt" in page.read().decode()
        finally:
            served.send_signal(signal.SIGTERM)
            served.wait(timeout=60)
