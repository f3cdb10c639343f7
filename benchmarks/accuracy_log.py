"""Speed and memory of reading an accuracy log: `make accuracy-log`.

Writes a log of images of 1024 x 1024, then reads it as scoring does: every image decoded and hashed, the file hashed.
Read twice: from the disk (the system is asked to forget the file first), then from the page cache. Ends with status 1
if the slower one would take over 180 s for the 5000 images of a run, or if memory grew by over 200 MB.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import resource
import sys
import tempfile
import time
from pathlib import Path

from sdxl_engine.environment import environment
from sdxl_engine.loadgen.accuracy_log import AccuracyLog

IMAGES = 5000
IMAGE_BYTES = 1024 * 1024 * 3
DISTINCT = 4
MOST_SECONDS, MOST_BYTES = 180.0, 200e6


def write(path: Path, count: int) -> tuple[list[str], str]:
    """Write a log as LoadGen does.

    Returns:
        SHA-256 of the distinct images, which take turns, and of the file.
    """
    images = [os.urandom(IMAGE_BYTES) for _ in range(DISTINCT)]
    whole = hashlib.sha256()
    with path.open("wb") as file:

        def put(text: bytes) -> None:
            file.write(text)
            whole.update(text)

        put(b"[\n")
        for row in range(count):
            put(b'{ "seq_id" : %d, "qsl_idx" : %d, "data" : "' % (row, row))
            put(images[row % DISTINCT].hex().upper().encode())
            put(b'" }\n' if row == count - 1 else b'" },\n')
        put(b"]\n")
        file.flush()
        os.fsync(file.fileno())
    return [hashlib.sha256(image).hexdigest() for image in images], whole.hexdigest()


def forget(path: Path) -> None:
    """Ask the system to drop the file from its page cache."""
    with path.open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def read(path: Path, count: int, digests: list[str], whole: str) -> tuple[float, float]:
    """Read the log and compare every digest with what was written.

    Returns:
        Wall and processor seconds.
    """
    wall, processor = time.perf_counter(), time.process_time()
    log = AccuracyLog(path, count)
    for index, data, sha256 in log.entries():
        assert len(data) == IMAGE_BYTES
        assert sha256 == digests[index % DISTINCT]
    assert log.file_sha256 == whole
    return time.perf_counter() - wall, time.process_time() - processor


def resident() -> int:
    """Resident memory of this process now, bytes."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGESIZE")


def main() -> int:
    """Write, read twice, print, judge."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=350, help="how many images to write (default: 350, 2.2 GB)")
    parser.add_argument("--folder", type=Path, help="where to write them (default: the system's temporary folder)")
    arguments = parser.parse_args()
    count, slowest = arguments.images, 0.0
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        path = Path(folder) / "mlperf_log_accuracy.json"
        digests, whole = write(path, count)
        size, before = path.stat().st_size, resident()
        about = environment()
        print(f"{about['processor']}, {about['cores']} cores, load {os.getloadavg()[0]:.2f}, {size / 1e9:.2f} GB")
        for source in ("disk", "page cache"):
            if source == "disk":
                forget(path)
            wall, processor = read(path, count, digests, whole)
            slowest = max(slowest, wall * IMAGES / count)
            print(
                f"from {source:10}  {wall:6.2f} s, {processor:6.2f} s of processor, {size / wall / 1e9:5.2f} GB/s: "
                f"{wall * IMAGES / count:4.0f} s for {IMAGES} images"
            )
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(f"peak resident memory {peak / 1e6:.0f} MB, {(peak - before) / 1e6:.0f} MB more than before reading")
    passed = slowest <= MOST_SECONDS and peak - before <= MOST_BYTES
    print(f"at most {MOST_SECONDS:.0f} s and {MOST_BYTES / 1e6:.0f} MB: {'ok' if passed else 'TOO MUCH'}")
    return int(not passed)


if __name__ == "__main__":
    sys.exit(main())
