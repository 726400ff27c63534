"""The commands as users give them, on embedded images: search, shrink, resume, train and compare reach their end."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from running import report
from task import before_the_device, parser

SMALL = ("--cells", "3", "--channels", "8", "--batch", "256")


def commands(device: str) -> Iterator[tuple[str, list[str]]]:
    """(name, arguments) in order; later ones use what earlier ones leave."""
    data = ("--data", "digits", "--device", device)
    for method in ("ddarts", "darts"):
        yield f"search {method}", ["search", *data, "--method", method, *SMALL, "--epochs", "2", "--out", method]
    more = ["search", "--resume", "--out", "ddarts", "--device", device, "--epochs", "3"]
    yield "resume", more
    yield (
        "search in bfloat16",
        ["search", *data, "--method", "ddarts", *SMALL, "--epochs", "1", "--out", "half", "--precision", "bf16"],
    )
    fast = ["--set", "shrink_steps=1", "--set", "shrink_interval=1", "--epochs", "3"]
    yield "shrink", ["search", *data, "--method", "isdarts", *SMALL, *fast, "--out", "isdarts"]
    for precision in ("float32", "bf16"):
        known = ["--epochs", "1", "--channels", "8", "--precision", precision, "--out", f"train-{precision}"]
        yield f"train {precision}", ["train", "ddarts/genotype.json", *data, *known]


def main() -> int:
    options = parser(__doc__).parse_args()
    before_the_device(options.dry, commands=[name for name, _ in commands(options.device)])
    found = {}
    for name, arguments in commands(options.device):
        begun = time.monotonic()
        command = [sys.executable, "-m", "ddarts_ext.cli", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        seconds = round(time.monotonic() - begun, 1)
        found[name] = {"code": done.returncode, "seconds": seconds, "said": done.stderr.splitlines()[-12:]}
        print(f"{name}: {'passed' if not done.returncode else 'FAILED'} after {seconds} s", flush=True)
        if done.returncode:
            print("\n".join(done.stderr.splitlines()[-40:]), flush=True)
        if Path("ddarts/history.jsonl").is_file() and name == "search ddarts":
            print(Path("ddarts/history.jsonl").read_text()[:600], flush=True)
        report(found)
    return int(any(result["code"] for result in found.values()))


if __name__ == "__main__":
    sys.exit(main())
