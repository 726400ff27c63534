"""Runs the blocks of one page, in its order, in one Python: play.py BLOCKS.json"""

from __future__ import annotations

import json
import subprocess
import sys
import traceback
from pathlib import Path
from typing import Any


def main() -> int:
    import shortened  # noqa: F401

    names: dict[str, Any] = {"__name__": "__main__"}
    for block in json.loads(Path(sys.argv[1]).read_text()):
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
