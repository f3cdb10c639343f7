"""A source in several processes: every image once and in order, batches to whichever is free, and one clear error."""

import dataclasses
import gc
import signal
import sys
import time
from contextlib import closing
from pathlib import Path

import numpy as np
import psutil
import pytest

from sdxl_engine.assemble import image_source
from sdxl_engine.data_parallel import DataParallel
from sdxl_engine.drawing_process import PER_PROCESS
from sdxl_engine.errors import AssetError, EngineError, LoadgenError
from sdxl_engine.loadgen.accuracy_log import ACCURACY_LOG, AccuracyLog
from sdxl_engine.loadgen.in_flight import batches_in_flight, drawn
from sdxl_engine.loadgen.runner import run_loadgen
from sdxl_engine.loadgen.spec import LoadgenSpec
from sdxl_engine.settings import RunSettings

FAKES = str(Path(__file__).parent / "loadgen")
COUNT = 43


@pytest.fixture(autouse=True)
def fakes(monkeypatch):
    """What the processes import is found where this one finds it."""
    monkeypatch.syspath_prepend(FAKES)


def parallel(*each, factory="loadgen_fakes:Tiny", **shared):
    """Tiny sources of 43 images in batches of 4, one process for each of `each`, its own options."""
    return DataParallel(factory, [("cpu", {"count": COUNT, **shared, **options}) for options in each])


def image(index):
    """As `Tiny` draws it."""
    return (np.arange(192) + 7 * index).astype(np.uint8).reshape(8, 8, 3)


def images_of(source, indices):
    found = {}
    for part, images in drawn(source, indices):
        found |= zip(indices[part].tolist(), images.copy(), strict=True)
    return found


def test_every_image_comes_once_and_in_order():
    with closing(parallel({}, {}, {})) as source:
        assert (source.batch_size, source.image_count) == (4, COUNT)
        source.warm_up()
        indices = np.random.default_rng(0).permutation(COUNT)
        given = [indices[part].tolist() for part, _ in drawn(source, indices)]
        assert [row for rows in given for row in rows] == indices.tolist()
        for row, picture in images_of(source, indices).items():
            np.testing.assert_array_equal(picture, image(row))
        np.testing.assert_array_equal(source.generate(np.array([7, 7, 40])), [image(7), image(7), image(40)])


def test_all_processes_draw_at_the_same_time():
    """Each batch sleeps: three processes take a third of the time that one would."""
    with closing(parallel({}, {}, {}, delay_s=0.2)) as source:
        source.warm_up()
        began = time.monotonic()
        assert len(images_of(source, np.arange(36))) == 36
        assert time.monotonic() - began < 0.65 * 9 * 0.2


def test_a_slow_device_gets_fewer_batches(tmp_path):
    slow, fast = tmp_path / "slow", tmp_path / "fast"
    factory = "loadgen_fakes:Counted"
    options = ({"notes": str(slow), "delay_s": 0.1}, {"notes": str(fast), "delay_s": 0.01})
    with closing(parallel(*options, factory=factory, batch_size=1)) as source:
        assert len(images_of(source, np.arange(COUNT))) == COUNT
    slow_batches, fast_batches = (len(path.read_text().splitlines()) for path in (slow, fast))
    assert slow_batches + fast_batches == COUNT
    assert slow_batches < 0.75 * fast_batches, "not one and one, in turns"


def test_as_many_batches_are_under_way_as_the_processes_can_hold(tmp_path):
    with closing(parallel({}, {})) as source:
        assert batches_in_flight(source) == 2 * PER_PROCESS
        started = [source.start(np.array([row])) for row in range(3 * PER_PROCESS)]
        for row, batch in enumerate(started):  # one more batch each than fits waits for its turn
            np.testing.assert_array_equal(batch.result(), [image(row)])


def test_one_batch_is_started_behind_the_one_that_is_drawn(tmp_path):
    """The source in the process is asked as LoadGen's worker asks one: two batches under way."""
    notes = tmp_path / "notes"
    with closing(parallel({"notes": str(notes)}, factory="loadgen_fakes:TwoPhase")) as source:
        for row, picture in images_of(source, np.arange(11)).items():
            np.testing.assert_array_equal(picture, image(row))
    steps = [line.split()[0] for line in notes.read_text().splitlines()]
    assert steps.count("start") == steps.count("result") == 3
    assert "start start start" not in " ".join(steps)


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        ("raise", "drawing on cpu failed: ValueError: no image for caption 5"),
        ("SIGKILL", "the process that draws on cpu ended while drawing: killed by SIGKILL"),
        ("vanish", "the process that draws on cpu ended while drawing: exit status 0"),
        ("list", "a pipeline returned a wrong batch"),
    ],
)
def test_what_goes_wrong_in_one_process_is_one_error_and_ends_all(fault, says):
    source = parallel({"fault": fault}, {"fault": fault})
    with pytest.raises(EngineError, match=says) as caught:
        images_of(source, np.arange(COUNT))
    if fault == "raise":
        assert "in strike\n" in caught.value.parts["got"], "the traceback"
    with pytest.raises(EngineError):
        source.close()
    assert not any(psutil.pid_exists(pid) for pid in source.pids)


def test_errors_of_the_loading_are_raised_here_and_leave_nothing_behind():
    this = psutil.Process()
    # What tests before have left in cycles would be closed meanwhile.
    gc.collect()
    descriptors, children = this.num_fds(), this.children()
    with pytest.raises(AssetError, match="the bundle is corrupt"):
        DataParallel("loadgen_fakes:corrupt_bundle", [("cpu", {}), ("cpu", {})])
    with pytest.raises(EngineError, match="failed: ModuleNotFoundError: No module named 'nowhere'"):
        DataParallel("nowhere:to_be_found", [("cpu", {})])
    with pytest.raises(EngineError, match="the pipelines of a run's devices differ") as caught:
        parallel({}, {"batch_size": 3})
    assert caught.value.parts["got"] == "cpu: batch size 4, 43 images; cpu: batch size 3, 43 images"
    gc.collect()
    assert (this.num_fds(), this.children()) == (descriptors, children)


def test_the_processes_end_with_their_parent():
    """However it ends: nothing is left that holds a GPU's memory."""
    code = (
        "import os, sys; sys.path.insert(0, sys.argv[1]); from sdxl_engine.data_parallel import DataParallel;"
        "source = DataParallel('loadgen_fakes:Tiny', [('cpu', {}), ('cpu', {})]);"
        "print(*source.pids, flush=True); os.kill(os.getpid(), 9)"
    )
    ended = psutil.Popen([sys.executable, "-c", code, FAKES], stdout=-1, text=True)
    pids = [int(pid) for pid in ended.communicate(timeout=60)[0].split()]
    assert ended.returncode == -signal.SIGKILL
    deadline = time.monotonic() + 10
    while any(_alive(pid) for pid in pids):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert len(pids) == 2


def _alive(pid):
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_the_pipelines_of_two_devices_draw_the_bytes_of_one():
    """From a run's settings, as a run does it; here with a pipeline that needs no diffusion."""
    settings = RunSettings(model="shapes", pipeline="tests.support.quick_pipelines:renders", samples=19)
    with closing(image_source(dataclasses.replace(settings, device="cpu,cpu").to_json())) as source:
        assert len(source.pids) == 2
        pictures = images_of(source, np.arange(19))
    for row, picture in images_of(image_source(settings.to_json()), np.arange(19)).items():
        np.testing.assert_array_equal(pictures[row], picture)


def loadgen_run(folder, **options):
    return LoadgenSpec(
        mode="AccuracyOnly",
        log_dir=folder / "logs",
        factory="loadgen_fakes:on_two_devices",
        factory_options=options,
        sys_path=(FAKES,),
        sample_count=11,
        start_timeout_s=60.0,
        stall_timeout_s=3.0,
    )


def test_loadgen_gets_every_response_and_its_run_counts_the_processes_memory(tmp_path):
    spec = loadgen_run(tmp_path)
    result = run_loadgen(spec)
    assert (result.samples, result.errors) == (11, ())
    logged = {entry.qsl_idx: entry.data for entry in AccuracyLog(spec.log_dir / ACCURACY_LOG, 11).entries()}
    assert logged == {row: image(row).tobytes() for row in range(11)}
    assert result.peak_memory_bytes > 3 * 25e6, "three processes with numpy"


def test_a_process_that_hangs_ends_the_run_with_its_stack_in_the_log(tmp_path):
    spec = loadgen_run(tmp_path, fault="hang")
    with pytest.raises(LoadgenError, match="made no progress for 3 s, and was killed"):
        run_loadgen(spec)
    log = (spec.log_dir / "child.log").read_text()
    assert "loadgen_fakes.py" in log
    assert "in strike" in log


def test_a_process_that_dies_ends_the_run_with_one_error(tmp_path):
    with pytest.raises(EngineError, match="ended while drawing: killed by SIGKILL") as caught:
        run_loadgen(loadgen_run(tmp_path, fault="SIGKILL"))
    assert caught.value.parts["fix"].startswith("if nobody killed it")
