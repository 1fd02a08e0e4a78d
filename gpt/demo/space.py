"""A published model as a Hugging Face Space: the demo's page on the Hub, laid out as a repository of its own.

The Space holds the code of this checkout, an app file of a few lines and a card; the model comes by its name when it starts.
"""

import shutil
import tomllib
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from fields.hub.cards import front_matter
from fields.hub.publish import Publication, publish
from fields.hub.push import Sent
from fields.runtime.runs import read_json, write_json
from gpt.checkpoint import load_gpt
from gpt.demo.options import PublishDemo

ROOT = Path(__file__).resolve().parents[2]
CODE = ("fields", "tokenizers", "gpt")
MARK = "space.json"
UNUSED = ("h5py", "imageio", "imageio-ffmpeg", "point-cloud-utils", "torchvision", "torchmetrics", "libigl")
"""What the page never imports, of the dependencies."""
APP = '''"""The demo of {model}: https://huggingface.co/{model}"""

from gpt.demo.demo import demo
from gpt.demo.options import DemoConfig

if __name__ == "__main__":
    import os

    demo(DemoConfig(model={model!r}, fields={fields!r}, host="0.0.0.0", port=int(os.environ.get("PORT", 7860))))
'''


def publish_demo(options: PublishDemo) -> Sent | None:
    """Lay the Space out and push it; see `PublishDemo`.

    Raises:
        FileNotFoundError, ValueError: if the model cannot be fetched, or writes no tokens.
    """
    model, tokenizer, info = load_gpt(str(options.path))
    fields = options.fields

    def prepare(folder: Path) -> None:
        for name in CODE:
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "*.md"))
        (folder / "app.py").write_text(APP.format(model=str(options.path), fields=fields), encoding="utf-8")
        (folder / "requirements.txt").write_text("\n".join(requirements()) + "\n", encoding="utf-8")
        write_json(folder / MARK, {"model": str(options.path), "fingerprint": info["fingerprint"], "fields": fields})

    def card(folder: Path, push: Any) -> str:
        name = (info.get("signals") or {}).get("name") or "signals"
        return space_card(options, name, read_json(folder / MARK))

    def mine(path: str) -> bool:
        return path in ("app.py", "requirements.txt", MARK) or path.split("/")[0] in CODE

    return publish(options, Publication("space", f"Demo of {options.path}", (MARK,), prepare, card, mine))


def requirements() -> list[str]:
    """What the page needs, as pyproject.toml bounds it, and Gradio."""
    known = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = [line for line in known["dependencies"] if line.split(">=")[0] not in UNUSED]
    return [*wanted, *known["optional-dependencies"]["demo"]]


def space_card(options: PublishDemo, name: str, about: dict) -> str:
    """README.md of the Space."""
    try:
        gradio = version("gradio")
    except PackageNotFoundError:
        gradio = requirements()[-1].split(">=")[1] + ".0"
    head = front_matter(
        title=options.repo.split("/")[1], sdk="gradio", sdk_version=gradio, app_file="app.py", python_version="3.11",
        models=[about["model"]], datasets=[about["fields"]] if about["fields"] else None,
    )  # fmt: skip
    lines = [
        f"# New neural fields of {name}",
        "",
        f"A page that draws from [{about['model']}](https://huggingface.co/{about['model']}) (fingerprint "
        f"`{about['fingerprint']}`): new fields at any size, their weights and tokens, completions, walks.",
        "",
        "On your machine: `pip install -r requirements.txt`, then `python app.py`.",
        "",
    ]
    return head + "\n".join(lines)
