"""The libraries of a package in another folder, built with another torch, load under this torch.

    python load_libraries.py FOLDER BUILT_WITH CUDA_LIBRARIES

_C as always. _cuda beside a torch without CUDA too: libcudart of CUDA_LIBRARIES, and a stand-in for libtorch_cuda with
the one function that is asked of it. Every other function must be there in this torch, or it does not load.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

import ddarts_ext
from ddarts_ext import _extension
from ddarts_ext.ops._library import defined_ops, has_kernel

STAND_IN = "int aoti_torch_get_current_cuda_stream(int device, void** stream) { return 1; }"


def load_stand_in(cuda_libraries: Path) -> None:
    ctypes.CDLL(str(next(cuda_libraries.glob("libcudart.so*"))), mode=ctypes.RTLD_GLOBAL)
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder) / "libtorch_cuda.so"
        compile_it = [os.environ.get("CC", "cc"), "-shared", "-fPIC", "-x", "c", "-", f"-Wl,-soname,{library.name}"]
        subprocess.run([*compile_it, "-o", str(library)], input=STAND_IN, text=True, check=True)
        ctypes.CDLL(str(library), mode=ctypes.RTLD_GLOBAL)


def main(folder: str, built_with: str, cuda_libraries: str) -> None:
    here = Path(ddarts_ext.__file__).resolve()
    assert here.is_relative_to(Path(folder).resolve()), f"the package is imported from {here}"
    status = _extension.load()
    assert not status.cpu_reason, status.cpu_reason
    built = str(status.record["torch"])
    assert built.startswith(built_with), built
    assert not torch.__version__.startswith(built_with), torch.__version__
    missing = [op for op in defined_ops() if not has_kernel(op, "cpu")]
    assert not missing, missing
    if torch.version.cuda is None:
        load_stand_in(Path(cuda_libraries))
        torch.ops.load_library(str(_extension._compiled("_cuda")))
    missing = [op for op in defined_ops() if not has_kernel(op, "cuda")]
    assert not missing, missing
    print(f"built with torch {built}, loaded under {torch.__version__}: _C and _cuda, all ops")


if __name__ == "__main__":
    main(*sys.argv[1:])
