"""The command: a model on a page of the local machine."""

import os
import socket
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
    check_gradio()
    torch.set_num_threads(config.threads)
    app = make_app(config)
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


def make_app(config: DemoConfig) -> Any:
    """The page as an ASGI application.

    Raises:
        ValueError, FileNotFoundError: for models or datasets that cannot be shown.
    """
    import gradio as gr
    from fastapi import FastAPI

    from gpt.demo.app import CSS, NAMING, build_page

    studio = open_studio(config.model, config.fields, config.revision)
    name = config.model if "/" in config.model and not Path(config.model).exists() else studio.name
    blocks = build_page(studio, f"New fields of {one_line(name, 60)}")
    blocks.queue(default_concurrency_limit=1)
    return gr.mount_gradio_app(
        FastAPI(), blocks, path="/", css=CSS, js=NAMING, theme=gr.themes.Base(), footer_links=[], ssr_mode=False
    )


def check_gradio() -> None:
    """Refuse to begin without Gradio, saying how to get it."""
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # before the import: nothing is sent anywhere
    try:
        import gradio  # noqa: F401 is it there
    except ImportError:
        raise RuntimeError(
            "the demo needs Gradio, which is not installed. Get it with: .venv/bin/python -m pip install -e '.[demo]'"
        ) from None
