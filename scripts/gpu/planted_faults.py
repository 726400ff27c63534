"""Faults that compute-sanitizer must find, under the filter that the ops are run with: else its silence says nothing.

memcheck: a kernel of the package is given a tensor that claims a thousand times the memory it has. racecheck: a kernel
of its namespace that lacks a barrier (planted_race.cu), compiled here.
"""

from __future__ import annotations

import ctypes
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from task import before_the_device, parser

from ddarts_ext import ops

ROOT = Path(__file__).resolve().parents[2]


class TooLarge:
    """Device memory of another size than it has, as the CUDA array interface hands it over."""

    def __init__(self, owner: torch.Tensor, shape: tuple[int, ...]) -> None:
        self.owner = owner
        self.__cuda_array_interface__ = {
            "shape": shape,
            "typestr": "<f4",
            "data": (owner.data_ptr(), False),
            "version": 2,
        }


def outside() -> None:
    owner = torch.ones(1, 8, 64, 64, device="cuda")
    # So large that it cannot all lie in memory that other tensors happen to have beside it.
    ops.pool3x3(torch.as_tensor(TooLarge(owner, (1024, 8, 64, 64)), device="cuda"), average=False)
    torch.cuda.synchronize()


def compile_race(folder: Path) -> Path:
    """A library with the planted kernel."""
    sys.path.insert(0, str(ROOT))
    import build_cuda

    cuda = build_cuda.find_cuda(torch.version.cuda)
    if isinstance(cuda, str):
        raise SystemExit(f"planted_faults: {cuda}")
    library = folder / "planted_race.so"
    source = Path(__file__).with_name("planted_race.cu")
    command = [str(cuda.nvcc), "-O1", "-arch=native", "-shared", "-Xcompiler", "-fPIC", str(source), "-o", str(library)]
    if not torch.cuda.is_available():
        command[command.index("-arch=native")] = "-arch=sm_90"
    subprocess.run(command, check=True)
    return library


def main() -> int:
    arguments = parser(__doc__)
    arguments.add_argument("--tool", choices=("memcheck", "racecheck"), required=True)
    options = arguments.parse_args()
    if options.tool == "memcheck":
        before_the_device(options.dry)
        outside()
        return 0
    with tempfile.TemporaryDirectory() as folder:
        race = ctypes.CDLL(str(compile_race(Path(folder)))).ddarts_planted_race
        before_the_device(options.dry)
        return int(race())


if __name__ == "__main__":
    sys.exit(main())
