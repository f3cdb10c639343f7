"""One MLPerf LoadGen test per child process: its settings, the system under test, the watchdog and the logs.

    spec.py       what one test is asked to do; travels to the child as JSON
    profile.py    the seeds of an MLPerf Inference version
    source.py     the protocols an image generator meets to be tested
    in_flight.py  start and result of a batch, for sources of either kind
    runner.py     parent: start the child, watch it, turn its logs into a result
    watch.py      parent: time limits, and what killed the child
    outcome.py    parent: detail log -> result, settings asked for against settings in effect
    logs.py       readers of `mlperf_log_detail.txt` and `mlperf_log_accuracy.json`
    heartbeat.py  both: the lines that the child writes to its pipe
    child.py      child: LoadGen itself (`python -m sdxl_engine.loadgen.child SPEC.json`)
    sut.py        child: LoadGen's queries -> batches -> responses

Only child.py and sut.py import `mlperf_loadgen`: an exception or a lost response leaves LoadGen's globals in
a state in which the next test of the same process aborts, so the process that drives the tests must never
hold it.
"""
