"""The extension modules and the list of packages; everything else about the package stands in pyproject.toml.

DDARTS_CUDA = auto (default: CUDA kernels where torch has CUDA and a matching nvcc is found) | 1 (a missing toolchain is
an error; works beside a CPU-only torch, to check that the sources compile) | 0. TORCH_CUDA_ARCH_LIST, CUDA_HOME, NVCC,
CXX, MAX_JOBS as usual. DDARTS_NO_EXTENSION=1 installs pure Python. DDARTS_OPS=mixed_sum,pool3x3 compiles these alone.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from setuptools import Extension, find_packages, setup

sys.path.insert(0, str(Path(__file__).resolve().parent))
import build_toolchain as toolchain

ROOT = toolchain.ROOT


def choose_cuda() -> tuple[toolchain.Cuda | None, str]:
    """The toolkit to build CUDA kernels with, or why none are built. DDARTS_CUDA=1 makes the reason an error."""
    import torch

    wish = os.environ.get("DDARTS_CUDA", "auto")
    if wish not in ("auto", "0", "1"):
        raise SystemExit(f"build: DDARTS_CUDA must be auto, 0 or 1, got {wish!r}")
    if wish == "0":
        return None, "DDARTS_CUDA=0 was set when it was built"
    if wish == "auto" and torch.version.cuda is None:
        return None, "torch was built without CUDA"
    cuda = toolchain.find_cuda()
    reason = cuda if isinstance(cuda, str) else ""
    wanted = torch.version.cuda
    if not isinstance(cuda, str) and wanted is not None and cuda.version.split(".")[0] != wanted.split(".")[0]:
        reason = f"{cuda.nvcc} is CUDA {cuda.version}, torch was built with {wanted}"
    if reason and wish == "1":
        raise SystemExit(f"build: DDARTS_CUDA=1 needs a CUDA toolchain: {reason}")
    return (None, reason) if isinstance(cuda, str) or reason else (cuda, "")


def extension_arguments() -> dict[str, Any]:
    """What setup() needs to know of the compiled libraries; nothing for a pure Python installation."""
    if os.environ.get("DDARTS_NO_EXTENSION", "") not in ("", "0"):
        return {}
    if importlib.util.find_spec("torch") is None and {"egg_info", "dist_info", "sdist"} & set(sys.argv):
        return {}  # metadata alone is asked for, before an isolated build has its torch
    os.environ.setdefault("MAX_JOBS", str(toolchain.default_jobs()))
    cuda, reason = choose_cuda()
    architectures = ""
    if cuda is not None:  # both before cpp_extension is imported: it reads them then
        os.environ["CUDA_HOME"] = str(cuda.home)
        os.environ["TORCH_CUDA_ARCH_LIST"] = architectures = toolchain.architectures()
    print(f"ddarts_ext: CUDA kernels: {f'{cuda.nvcc} for {architectures}' if cuda else f'none ({reason})'}", flush=True)

    import torch
    from torch.utils import cpp_extension

    include = [str(ROOT / "csrc")]
    headers = [str(path.relative_to(ROOT)) for path in sorted((ROOT / "csrc").rglob("*.h"))]
    cpu_sources = toolchain.sources("cpu", ".cpp")
    extensions: list[Extension] = [
        cpp_extension.CppExtension(
            "ddarts_ext._C",
            ["csrc/bindings.cpp", "csrc/common/cpu_capability.cpp", *cpu_sources],
            include_dirs=include,
            extra_compile_args=[*toolchain.CXX_FLAGS, *toolchain.capability_flags("baseline")],
            depends=headers,
        )
    ]
    by_hand = cuda is not None and torch.version.cuda is None
    if cuda is not None:
        cuda_sources = toolchain.sources("cuda", ".cpp", ".cu")
        make = Extension if by_hand else cpp_extension.CUDAExtension
        flags = {"cxx": [*toolchain.CXX_FLAGS, "-DUSE_CUDA"], "nvcc": toolchain.NVCC_FLAGS}
        depends = headers + [str(path.relative_to(ROOT)) for path in sorted((ROOT / "csrc").rglob("*.cuh"))]
        extensions.append(
            make("ddarts_ext._cuda", cuda_sources, include_dirs=include, extra_compile_args=flags, depends=depends)
        )

    class Build(cpp_extension.BuildExtension):  # type: ignore[misc, valid-type]
        def finalize_options(self) -> None:
            super().finalize_options()
            # One folder per torch and Python that survives the build: the next one compiles what changed.
            tag = f"{sys.implementation.cache_tag}-torch{torch.__version__}"
            self.build_temp = str(ROOT / "build" / f"objects-{tag}")

        def build_extensions(self) -> None:
            toolchain.write_record(
                Path(self.build_temp),
                version=self.distribution.get_version(),
                cuda=cuda,
                cuda_reason=reason,
                architecture_list=architectures,
            )
            every = self.extensions
            self.extensions = every[:1] if by_hand else every
            every[0].include_dirs.append(self.build_temp)
            super().build_extensions()
            self.extensions = every
            if by_hand and cuda is not None:
                build_cuda_library(cuda, every[1], Path(self.build_temp), Path(self.get_ext_fullpath(every[1].name)))

        def build_extension(self, extension: Extension) -> None:
            if extension.name == "ddarts_ext._C":
                # After the baseline's objects: where the linker merges copies of an inline function, the first one
                # stays, and that one must run on every processor.
                for capability in toolchain.capabilities()[1:]:
                    extension.extra_objects += self.compiler.compile(
                        cpu_sources,
                        output_dir=str(Path(self.build_temp) / capability),
                        include_dirs=extension.include_dirs,
                        extra_postargs={"cxx": [*toolchain.CXX_FLAGS, *toolchain.capability_flags(capability)]},
                        depends=extension.depends,
                    )
            super().build_extension(extension)

    return {"ext_modules": extensions, "cmdclass": {"build_ext": Build}}


def build_cuda_library(cuda: toolchain.Cuda, extension: Extension, folder: Path, target: Path) -> None:
    """The CUDA library beside a torch without CUDA, which torch.utils.cpp_extension refuses to build.

    What it needs of libtorch_cuda is resolved when it is loaded; to link, an empty stand-in of that name is enough.
    """
    import torch

    torch_folder = Path(torch.__file__).parent
    compiler = os.environ.get("CXX", "c++")
    folder = folder / "cuda"
    folder.mkdir(parents=True, exist_ok=True)
    architecture_flags = toolchain.gencode_flags(os.environ["TORCH_CUDA_ARCH_LIST"])
    include = [f"-I{ROOT / 'csrc'}", "-isystem", str(torch_folder / "include"), "-isystem", str(cuda.include)]
    commands = []
    for source in extension.sources:
        output = ["-c", str(ROOT / source), "-o", str(folder / f"{Path(source).name}.o")]
        if source.endswith(".cu"):
            commands.append([str(cuda.nvcc), *toolchain.NVCC_FLAGS, *architecture_flags, *include[:1], *output])
        else:
            commands.append([compiler, *toolchain.CXX_FLAGS, "-DUSE_CUDA", *include, *output])

    def run(command: list[str]) -> None:
        print(" ".join(command), flush=True)
        subprocess.run(command, check=True)

    with ThreadPoolExecutor(int(os.environ["MAX_JOBS"])) as pool:
        list(pool.map(run, commands))
    stand_in = folder / "libtorch_cuda.so"
    run([compiler, "-shared", "-x", "c", os.devnull, f"-Wl,-soname,{stand_in.name}", "-o", str(stand_in)])
    target.parent.mkdir(parents=True, exist_ok=True)
    libraries = [f"-L{torch_folder / 'lib'}", f"-L{folder}", "-ltorch_cpu", "-Wl,--no-as-needed", "-ltorch_cuda"]
    runtime = ["-Wl,--as-needed", str(runtime_library(cuda))]
    run([compiler, "-shared", *(c[-1] for c in commands), *libraries, *runtime, "-o", str(target)])


def runtime_library(cuda: toolchain.Cuda) -> Path:
    """libcudart of the toolkit; the registry's wheels have it without the unversioned name."""
    found = sorted(cuda.libraries.glob("libcudart.so*"))
    if not found:
        raise SystemExit(f"build: no libcudart.so in {cuda.libraries}")
    return found[0]


# An installed `ddarts bench` reads its cases from the package: benchmarks/ travels as ddarts_ext/_benchmarks.
setup(
    packages=[*find_packages(include=["ddarts_ext*"]), "ddarts_ext._benchmarks"],
    package_dir={"ddarts_ext._benchmarks": "benchmarks"},
    **extension_arguments(),
)
