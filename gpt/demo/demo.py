"""The command: a model on a page of the local machine."""

import atexit
import os
import shutil
import socket
import tempfile
from pathlib import Path
from typing import Any

import torch

from fields.runtime.text import one_line
from gpt.demo.options import DemoConfig
from gpt.demo.studio import open_studio


def demo(config: DemoConfig) -> None:
    """Open the model and serve the page until interrupted.

    Raises:
        RuntimeError: if Gradio is not installed.
        ValueError, FileNotFoundError: for models or datasets that cannot be shown.
    """
    folder = check_gradio()
    torch.set_num_threads(config.threads)
    app = make_app(config, folder)
    with socket.socket() as door:  # opened here, so that port 0 is known and a port in use is told in one sentence
        door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        door.bind((config.host, config.port))
        door.listen()
        print(f"http://{config.host}:{door.getsockname()[1]}/ shows {config.model}; stop it with Ctrl-C", flush=True)
        serve(app, door)


def serve(app: Any, door: socket.socket) -> None:
    """Answer on an open socket until interrupted."""
    import uvicorn

    uvicorn.Server(uvicorn.Config(app, log_level="warning")).run(sockets=[door])


def make_app(config: DemoConfig, folder: Path) -> Any:
    """The page as an ASGI application.

    Args:
        folder: for files to download.
    Raises:
        ValueError, FileNotFoundError: for models or datasets that cannot be shown.
    """
    import gradio as gr
    from fastapi import FastAPI

    from gpt.demo.app import CSS, SCRIPT, build_page

    studio = open_studio(config.model, config.fields, config.revision)
    name = config.model if "/" in config.model and not Path(config.model).exists() else studio.name
    blocks = build_page(studio, f"New fields of {one_line(name, 60)}", folder / "files")
    blocks.queue(default_concurrency_limit=1)
    return gr.mount_gradio_app(
        FastAPI(), blocks, path="/", css=CSS, js=SCRIPT, theme=gr.themes.Base(), footer_links=[], ssr_mode=False
    )


def check_gradio() -> Path:
    """Refuse to begin without Gradio, saying how to get it.

    Returns:
        A folder of this process alone for all that the page serves, removed at its end.
    """
    folder = Path(tempfile.mkdtemp(prefix="fields-demo-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    # Both before the import. Gradio's own folder is shared by all pages of a machine, and the first that ends empties it.
    os.environ["GRADIO_TEMP_DIR"] = str(folder / "cache")
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # nothing is sent anywhere
    try:
        import gradio  # noqa: F401 is it there
    except ImportError:
        raise RuntimeError(
            "the demo needs Gradio, which is not installed. Get it with: .venv/bin/python -m pip install -e '.[demo]'"
        ) from None
    return folder
