"""The process that builds one plan: `python -m sdxl_engine.engines.tensorrt.child FD < JOB.json`.

Writes one JSON object per line to the file descriptor FD: `{"phase": ...}` as it goes, and last either
`{"manifest": ..., "peak_host_bytes": ...}` or `{"error": {"kind": ..., "what": ..., "parts": ...}}`.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from contextlib import suppress
from pathlib import Path

from sdxl_engine.errors import SdxlError
from sdxl_engine.loadgen.heartbeat import peak_memory_bytes


def main(arguments: list[str]) -> int:
    """Build what standard input describes; returns the exit status."""
    fd = int(arguments[0])
    os.set_inheritable(fd, False)

    def send(message: dict[str, object]) -> None:
        os.write(fd, json.dumps(message).encode() + b"\n")

    # If memory runs out, the kernel shall end this process and not the one that started it.
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")
    try:
        # Imported inside the try block: a library that does not load is reported like any other failure.
        from sdxl_engine.engines.tensorrt.build import build
        from sdxl_engine.engines.tensorrt.job import BuildJob

        manifest = build(BuildJob.from_json(json.load(sys.stdin)), lambda line: send({"phase": line}))
    except SdxlError as error:
        send({"error": {"kind": type(error).__name__, "what": error.what, "parts": error.parts}})
        return 1
    except Exception as error:  # noqa: BLE001  reported to the parent
        traceback.print_exc()
        send({"error": {"kind": "EngineError", "what": f"{type(error).__name__}: {error}", "parts": {}}})
        return 1
    send({"manifest": manifest.to_json(), "peak_host_bytes": peak_memory_bytes()})
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
