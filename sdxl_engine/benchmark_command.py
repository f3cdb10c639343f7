"""The benchmark's own commands in its own spelling: `python -m sdxl_engine.benchmark_command generate_engines ARGS`.

`make generate_engines RUN_ARGS="--benchmarks=stable-diffusion-xl --scenarios=Offline --model_opt=DeepCache"` ends here:
each argument becomes one of `sdxl-engine`'s, or is refused. Nothing is ignored. So do
`BENCHMARKS=stable-diffusion-xl make download_model`, `download_data` and `preprocess_data`.

Source of the names: NVIDIA's MLPerf Inference v4.0 and v4.1 harness (`arguments.py`, `fields.py` and `constants.py` in
code/common).
"""

from __future__ import annotations

import ast
import sys
from typing import TYPE_CHECKING

from sdxl_engine.cli import main as run_command
from sdxl_engine.errors import UsageError, unknown_choice

if TYPE_CHECKING:
    from collections.abc import Sequence

_ACTIONS = {
    "download_model": "download-model",
    "download_data": "download-data",
    "preprocess_data": "preprocess-data",
    "generate_engines": "generate-engines",
}
_BENCHMARKS = ("stable-diffusion-xl", "sdxl-base", "diffusion", "stable-diffusion", "sdxl")
_FIXED = {
    "benchmarks": _BENCHMARKS,
    "config_ver": ("default",),
    "harness_type": ("custom",),
    "accuracy_target": ("0.99", "k_99"),
    "power_setting": ("MaxP",),
}
"""Arguments with one value that this project has; it stands in the plans' names."""

_FLAGS = {"force_build_engines": "--force", "force": "--force"}
_RENAMED = {"scenarios": "--scenario"}
_SHARED = ("model_opt", "precision")
_OWN = (
    "model",
    "engine",
    "build_dir",
    "batch_size",
    "workspace",
    "compute_capability",
    "json",
    "captions",
    "latents",
    "output",
)
"""Options that the benchmark does not have, in either spelling."""

_DOWNLOADS = {
    "download_model": ("source", "build_dir", "json", "precision"),
    "download_data": ("source", "build_dir", "json", "only"),
}
_DOWNLOAD_FLAGS = {"dry_run": "--dry-run", "offline": "--offline"}
"""Of the downloads, for which the benchmark's own commands have no arguments."""


def translate(action: str, arguments: Sequence[str]) -> list[str]:
    """`sdxl-engine`'s arguments for a command of the benchmark's.

    Args:
        action: `download_model`, `download_data`, `preprocess_data` or `generate_engines`.
        arguments: `--name=value` or `--name value`, as in RUN_ARGS.

    Raises:
        UsageError: an argument or a value is not known, or does not go with this project.
    """
    if action not in _ACTIONS:
        raise unknown_choice("action", action, list(_ACTIONS), source="the benchmark's command")
    given = _pairs(arguments)
    found = [_ACTIONS[action]]
    for name, value in given.items():
        found += _download_option(action, name, value) if action in _DOWNLOADS else _one(name, value)
    if "benchmarks" not in given:
        expected = (
            "--benchmarks=stable-diffusion-xl" if action == "generate_engines" else "BENCHMARKS=stable-diffusion-xl"
        )
        raise UsageError("RUN_ARGS name no benchmark", expected=expected, source="RUN_ARGS")
    if action in _DOWNLOADS:
        return found
    # The benchmark's engines are TensorRT's.
    return [*found, "--engine", "tensorrt"] if action == "generate_engines" and "engine" not in given else found


def _pairs(arguments: Sequence[str]) -> dict[str, str | None]:
    """Name, without dashes and with underscores, to value; a flag has none."""
    found: dict[str, str | None] = {}
    rest = list(arguments)
    while rest:
        word = rest.pop(0)
        if not word.startswith("--"):
            raise UsageError("this is not an argument", got=word, expected="--name=value", source="RUN_ARGS")
        name, equals, value = word[2:].partition("=")
        if equals:
            found[name.replace("-", "_")] = value
        else:
            found[name.replace("-", "_")] = rest.pop(0) if rest and not rest[0].startswith("--") else None
    return found


def _one(name: str, value: str | None) -> list[str]:
    source = f"--{name} in RUN_ARGS"
    if name in _FLAGS:
        if value not in (None, "true", "True", "1"):
            raise UsageError("this flag takes no value", got=value, expected=f"--{name}", source=source)
        return [_FLAGS[name]]
    known = [*_FIXED, *_FLAGS, *_RENAMED, *_SHARED, *_OWN, *_CONVERTED]
    if name not in known:
        raise unknown_choice("argument", name, known, source="RUN_ARGS")
    if value is None:
        raise UsageError("this argument needs a value", got=f"--{name}", expected=f"--{name}=VALUE", source="RUN_ARGS")
    if name in _FIXED:
        if value not in _FIXED[name]:
            raise unknown_choice(name.replace("_", " "), value, _FIXED[name], source=source)
        return []
    if name in _CONVERTED:
        option, convert = _CONVERTED[name]
        return [option, convert(value, source)]
    return [_RENAMED.get(name, "--" + name.replace("_", "-")), value]


def _download_option(action: str, name: str, value: str | None) -> list[str]:
    if name == "benchmarks":
        return _one(name, value)
    if name in _DOWNLOAD_FLAGS and value is None:
        return [_DOWNLOAD_FLAGS[name]]
    known = [*_DOWNLOADS[action], *_DOWNLOAD_FLAGS]
    if name not in known:
        raise unknown_choice("argument", name, ["benchmarks", *known], source="RUN_ARGS")
    if name in _DOWNLOAD_FLAGS:
        raise UsageError("this flag takes no value", got=value, expected=f"--{name}", source="RUN_ARGS")
    if value is None:
        raise UsageError("this argument needs a value", got=f"--{name}", expected=f"--{name}=VALUE", source="RUN_ARGS")
    return ["--" + name.replace("_", "-"), value]


def _whole(value: str, source: str) -> int:
    if not value.isdecimal():
        raise UsageError("this is not a whole number", got=value, expected="digits", source=source)
    return int(value)


def _gib(value: str, source: str) -> str:
    return str(_whole(value, source) / (1 << 30))


def _device(value: str, source: str) -> str:
    return "auto" if value == "all" else f"cuda:{_whole(value, source)}"


def _batch_size(value: str, source: str) -> str:
    """`8` as it is; v4.1's `{'clip1': 64, 'deep-unet': 8}` as `clip1=64,deep-unet=8`."""
    if not value.startswith("{"):
        return value
    try:
        return ",".join(f"{name}={size}" for name, size in ast.literal_eval(value).items())
    except (ValueError, SyntaxError, AttributeError):
        expected = "a number, or {'clip1': 64, ...}"
        raise UsageError("this is not a batch size", got=value, expected=expected, source=source) from None


_CONVERTED = {
    "gpu_batch_size": ("--batch-size", _batch_size),
    "workspace_size": ("--workspace", _gib),
    "devices": ("--device", _device),
}
"""The benchmark counts the workspace in bytes and names devices by number."""


def main(arguments: list[str]) -> int:
    """Translate and run; the exit status is `sdxl-engine`'s."""
    try:
        translated = translate(arguments[0] if arguments else "", arguments[1:])
    except UsageError as error:
        print(error, file=sys.stderr)
        return error.exit_status
    return run_command(translated)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
