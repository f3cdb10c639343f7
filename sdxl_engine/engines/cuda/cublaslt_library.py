"""The shared library of cuBLASLt: found, loaded, called with every status checked."""

from __future__ import annotations

import ctypes
import ctypes.util
import functools
import importlib.util
import os
from pathlib import Path
from typing import Any

from sdxl_engine.engines.cuda.cublaslt_api import PROTOTYPES, Status
from sdxl_engine.errors import EngineError, UnavailableError

LIBRARY = "libcublasLt.so"


class CublasLt:
    """The loaded library. Every call raises unless its status is SUCCESS.

    Args:
        path: Of the shared library.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self.functions = ctypes.CDLL(str(path))
            self.functions.cublasLtGetVersion.restype = ctypes.c_size_t
            self.version = int(self.functions.cublasLtGetVersion())
            for name, arguments in PROTOTYPES.items():
                function = getattr(self.functions, name)
                function.argtypes, function.restype = arguments, ctypes.c_int
        except (OSError, AttributeError) as error:
            raise UnavailableError(
                "cuBLASLt does not load", got=error, expected=f"{LIBRARY} of CUDA 12 or 13", source=path
            ) from error

    def call(self, name: str, *arguments: Any, about: object = None) -> None:
        """Call the function `name`.

        Raises:
            EngineError: its status is not SUCCESS; the message names call, status and `about`.
        """
        status = getattr(self.functions, name)(*arguments)
        if status:
            raise failed(name, status, about, self)


def failed(name: str, status: int, about: object, library: CublasLt) -> EngineError:
    """The error for a call that returned `status`."""
    names = {value.value: value.name for value in Status}
    known = f"CUBLAS_STATUS_{names[status]}" if status in names else "a status that cublas_api.h does not have"
    return EngineError(
        f"{name} failed" + ("" if about is None else f" for {about}"),
        got=f"{known} ({status})",
        expected="CUBLAS_STATUS_SUCCESS",
        source=f"cuBLASLt {library.version}, {library.path}",
    )


@functools.cache
def load() -> CublasLt:
    """The library that torch has loaded, or else the one it would load.

    Raises:
        UnavailableError: there is none, or it does not load.
    """
    return CublasLt(find())


def find() -> Path:
    """Where cuBLASLt is: loaded already, in NVIDIA's Python packages, in a CUDA installation, known to the linker.

    Raises:
        UnavailableError: nowhere.
    """
    folders = [*_package_folders(), *_toolkit_folders()]
    for path in (*_loaded(), *(path for folder in folders for path in sorted(folder.glob(f"{LIBRARY}.[0-9]*")))):
        return path
    known = ctypes.util.find_library("cublasLt")
    if known:
        return Path(known)
    raise UnavailableError(
        "cuBLASLt is not installed",
        got=f"no {LIBRARY} in this process nor in {', '.join(map(str, folders)) or 'any package of NVIDIA'}",
        expected=f"{LIBRARY} of CUDA 12 or 13",
        source="engine cuda",
        fix="pip install torch, in a build for CUDA",
    )


def _loaded(maps: Path = Path("/proc/self/maps")) -> list[Path]:
    """Of this process, from the kernel's list of mapped files: address, rights, offset, device, inode, path."""
    if not maps.exists():
        return []
    fields = (line.split(maxsplit=5) for line in maps.read_text(encoding="utf-8", errors="replace").splitlines())
    paths = {line[5] for line in fields if len(line) == 6}
    return sorted(Path(path) for path in paths if Path(path).name.startswith(LIBRARY) and Path(path).exists())


def _package_folders() -> list[Path]:
    spec = importlib.util.find_spec("nvidia")
    roots = [Path(root) for root in (spec.submodule_search_locations or [])] if spec else []
    return [root / part / "lib" for root in roots for part in ("cu13", "cublas") if (root / part / "lib").is_dir()]


def _toolkit_folders() -> list[Path]:
    roots = [os.environ.get("CUDA_HOME"), os.environ.get("CUDA_PATH"), "/usr/local/cuda"]
    folders = [Path(root) / name for root in roots if root for name in ("lib64", "lib")]
    return [folder for folder in folders if folder.is_dir()]
