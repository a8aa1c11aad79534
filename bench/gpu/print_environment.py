"""Print the GPU, the machine and the versions of packages. Fails if something required is missing."""

from __future__ import annotations

import bench_folder  # noqa: F401

import importlib.metadata
import os
import platform
import shutil
import subprocess
import sys

import torch

from command_line import script_parser
from mlperf.util.program import run_program

PACKAGES = ("torch", "triton", "numpy", "numba", "scikit-learn", "mlperf-logging", "pytest", "pytest-xdist")
# Triton compiles the launcher of each kernel with a C compiler; the sanitizer is part of the CUDA toolkit.
PROGRAMS = ("nvidia-smi", "gcc", "clang", "compute-sanitizer")


def main() -> int:
    """Print one fact per line. Returns 1 if something required is missing."""
    parser = script_parser(__file__, __doc__)
    parser.add_argument("--reduced", action="store_true", help="the checks run without a GPU")
    args = parser.parse_args()
    problems = []
    if shutil.which("nvidia-smi"):
        query = ["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
        print(subprocess.run(query, capture_output=True, text=True, check=False).stdout.strip())
    if torch.cuda.is_available():
        free, total = torch.cuda.mem_get_info()
        print(f"CUDA {torch.version.cuda}, {free / 1e9:.1f} of {total / 1e9:.1f} GB of GPU memory free")
    elif not args.reduced:
        problems.append("no GPU is visible to PyTorch")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    print(f"{os.cpu_count()} cores, {memory / 1e9:.0f} GB of memory, Python {platform.python_version()}")
    print(f"{shutil.disk_usage('.').free / 1e9:.0f} GB free on disk")
    for program in PROGRAMS:
        print(f"{program}: {shutil.which(program) or 'not found'}")
    if not shutil.which("gcc") and not shutil.which("clang"):
        problems.append("no C compiler")
    for package in PACKAGES:
        try:
            print(f"{package} {importlib.metadata.version(package)}")
        except importlib.metadata.PackageNotFoundError:
            problems.append(f"{package} is not installed")
    for problem in problems:
        print(f"print_environment.py: error: {problem}", file=sys.stderr)
    return int(bool(problems))


if __name__ == "__main__":
    sys.exit(run_program("print_environment.py", main))
