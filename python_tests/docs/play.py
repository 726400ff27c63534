"""Runs the blocks of one page, in its order, in one Python: play.py BLOCKS.json"""

from __future__ import annotations

import json
import subprocess
import sys
import time
import traceback
from pathlib import Path
from typing import Any


def main() -> int:
    """The exit code. Commands in bash blocks are answered by server.py, at the place that is the second argument."""
    blocks = json.loads(Path(sys.argv[1]).read_text())
    if len(sys.argv) < 3 or not any("ddarts" in b["text"] for b in blocks if b["language"] == "bash"):
        return run(blocks)
    place = Path(sys.argv[2])
    server = subprocess.Popen([sys.executable, str(Path(__file__).with_name("server.py")), str(place)])
    try:
        while not place.exists():
            if server.poll() is not None:
                print("the server of commands has ended", flush=True)
                return 1
            time.sleep(0.05)
        return run(blocks)
    finally:
        server.terminate()
        server.wait()


def run(blocks: list[dict[str, str]]) -> int:
    if any(block["language"] == "python" for block in blocks):
        import shortened  # noqa: F401

    names: dict[str, Any] = {"__name__": "__main__"}
    for block in blocks:
        print(f"--- {block['place']}", flush=True)
        if block["language"] == "bash":
            done = subprocess.run(["bash", "-euo", "pipefail", "-c", block["text"]], check=False)
            if done.returncode:
                print(f"{block['place']} ends with {done.returncode}", flush=True)
                return 1
            continue
        try:
            exec(compile(block["text"], block["place"], "exec"), names)
        except Exception:
            traceback.print_exc()
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
