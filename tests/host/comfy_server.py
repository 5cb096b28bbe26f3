"""A ComfyUI process of its own for the tests, with this pack and the test nodes linked in."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

ROOT = Path(__file__).parents[2]
TEST_PACK = Path(__file__).parent / "test_pack"
GGUF_PACK = "ComfyUI-GGUF"
"""The pack that loads GGUF, in the folder custom_nodes."""
HOW_TO_ENABLE = "no ComfyUI found: set COMFYUI_PATH to its folder (and COMFYUI_PYTHON to its Python) to run these tests"
START_TIMEOUT = 300.0


def find_comfyui() -> Path | None:
    """The folder of the ComfyUI to test in: COMFYUI_PATH, else ~/comfy/ComfyUI; none if it has no main.py."""
    path = Path(os.environ.get("COMFYUI_PATH") or "~/comfy/ComfyUI").expanduser()
    return path if (path / "main.py").is_file() else None


def find_python(comfyui: Path) -> str:
    """The Python of that ComfyUI: COMFYUI_PYTHON, else its own environment's, else the one running now."""
    candidates = [comfyui / ".venv/bin/python", comfyui / "venv/bin/python"]
    found = [str(path) for path in candidates if path.exists()]
    return os.environ.get("COMFYUI_PYTHON") or (found or [sys.executable])[0]


class ComfyServer:
    """ComfyUI on the CPU with ``base`` as its base directory; not started yet.

    Attributes:
        base: holds ``models``, ``input``, ``output`` and ``custom_nodes``.
        url: where it listens, once started.
        log: the file that its output goes to.
    """

    def __init__(self, comfyui: Path, base: Path):
        self.comfyui, self.base, self.log = comfyui, base, base / "comfyui.log"
        for folder in ("models/checkpoints", "models/loras", "input", "output", "custom_nodes"):
            (base / folder).mkdir(parents=True)
        (base / "custom_nodes/vipaint").symlink_to(ROOT)
        (base / "custom_nodes/vipaint_test_pack").symlink_to(TEST_PACK)

    def start(self) -> None:
        """Run it and wait until it answers.

        Raises:
            RuntimeError: it ended, or did not answer in time; the message has the end of its log.
        """
        port = _free_port()
        self.url = f"http://127.0.0.1:{port}"
        command = [
            find_python(self.comfyui),
            "main.py",
            "--cpu",
            "--port",
            str(port),
            "--base-directory",
            str(self.base),
            "--disable-auto-launch",
            "--disable-api-nodes",
            "--database-url",
            "sqlite:///:memory:",
            "--preview-method",
            "latent2rgb",
        ]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                command, cwd=self.comfyui, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
            )
        deadline = time.monotonic() + START_TIMEOUT
        while not self._answers():
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise RuntimeError(f"ComfyUI did not start; the end of its log:\n{self.log_since(0)[-4000:]}")
            time.sleep(0.3)

    def stop(self) -> None:
        """End the process and everything it started."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGTERM)
            try:
                self.process.wait(15)
            except subprocess.TimeoutExpired:
                os.killpg(self.process.pid, signal.SIGKILL)
                self.process.wait()

    def log_size(self) -> int:
        """Bytes logged so far."""
        return self.log.stat().st_size

    def log_since(self, position: int) -> str:
        """What was logged after ``position`` bytes."""
        return self.log.read_bytes()[position:].decode(errors="replace")

    def resident_bytes(self) -> int:
        """Memory of the process that is in RAM now."""
        pages = Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE")

    def _answers(self) -> bool:
        try:
            with urlopen(f"{self.url}/system_stats", timeout=5):
                return True
        except (URLError, ConnectionError, TimeoutError):
            return False


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]
