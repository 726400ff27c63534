"""Installs the package, kernels for the visible device alone. --if-needed: not where its kernels are in use already."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from running import report

ROOT = Path(__file__).resolve().parents[2]
IN_USE = """
import sys
from ddarts_ext import _extension
status = _extension.load()
sys.exit(bool(status.cpu_reason or (status.cuda_reason and sys.argv[1] == "1")))
"""


def main() -> int:
    cuda = os.environ.get("DDARTS_CUDA", "auto")
    if "--if-needed" in sys.argv:
        found = subprocess.run([sys.executable, "-c", IN_USE, cuda], capture_output=True, check=False)
        if found.returncode == 0:
            report({"built": False})
            print("the kernels of an installed package are in use")
            return 0
    environment = dict(os.environ)
    if cuda == "1" and "TORCH_CUDA_ARCH_LIST" not in environment:
        import torch

        environment["TORCH_CUDA_ARCH_LIST"] = "{}.{}".format(*torch.cuda.get_device_capability())
    command = [sys.executable, "-m", "pip", "install", "-v", "--no-build-isolation", "--no-deps", "--force-reinstall"]
    begun = time.monotonic()
    done = subprocess.run([*command, str(ROOT)], env=environment, check=False)
    report(
        {
            "built": done.returncode == 0,
            "seconds": round(time.monotonic() - begun, 1),
            "architectures": environment.get("TORCH_CUDA_ARCH_LIST"),
        }
    )
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())
