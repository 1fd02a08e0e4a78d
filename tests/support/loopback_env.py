"""The Hub of the whole test session: a loopback one. Imported before the libraries, which read its address only once.

So no test can reach the real Hub, and the user's token and cache are out of reach.
"""

import atexit
import os
import shutil
import tempfile

from loopback_hub import start

HUB, URL = start()
CACHE = tempfile.mkdtemp(prefix="hub-tests-")
atexit.register(shutil.rmtree, CACHE, ignore_errors=True)
for name in ("HF_HUB_OFFLINE", "HF_HUB_CACHE", "HF_DATASETS_CACHE", "HUGGING_FACE_HUB_TOKEN", "HF_TOKEN_PATH"):
    os.environ.pop(name, None)
for name in ("http_proxy", "https_proxy", "all_proxy"):
    os.environ.pop(name, None)
    os.environ.pop(name.upper(), None)
os.environ |= {
    "HF_ENDPOINT": URL,
    "HF_TOKEN": HUB.token,
    "HF_HOME": CACHE,
    "HF_HUB_DISABLE_XET": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
}
