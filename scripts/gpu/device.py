"""Which GPU there is, as its driver and torch have it; fails where torch sees none."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys

import torch
from running import report
from task import before_the_device, parser


def main() -> int:
    options = parser(__doc__).parse_args()
    known: dict[str, object] = {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torch_cuda": torch.version.cuda,
        "cores": os.cpu_count(),
    }
    if options.device == "cuda" and torch.version.cuda is None:
        print(f"device: torch must be built with CUDA, got {torch.__version__}")
        return 1
    if shutil.which("nvidia-smi") and not options.dry:
        done = subprocess.run(["nvidia-smi"], capture_output=True, text=True, check=False, timeout=30)
        known["nvidia_smi"] = done.stdout[:4000]
        print(done.stdout)
    before_the_device(options.dry, **known)
    if options.device == "cuda":
        if not torch.cuda.is_available():
            print("device: torch must see a GPU, it sees none")
            return 1
        properties = torch.cuda.get_device_properties(0)
        known |= {
            "gpu": properties.name,
            "capability": f"{properties.major}.{properties.minor}",
            "multiprocessors": properties.multi_processor_count,
            "memory": properties.total_memory,
        }
        torch.ones(4, device="cuda").sum().item()
    report(known)
    print({name: value for name, value in known.items() if name != "nvidia_smi"})
    return 0


if __name__ == "__main__":
    sys.exit(main())
