"""Each of xdist's workers keeps to its share of the cores, with all that it starts: threads and processes that outnumber the
cores spend their time waiting for one another. Here, since it has to come before torch makes its threads."""

import os

if (worker := os.environ.get("PYTEST_XDIST_WORKER")) and hasattr(os, "sched_setaffinity"):
    share = sorted(os.sched_getaffinity(0))[int(worker.removeprefix("gw")) :: int(os.environ["PYTEST_XDIST_WORKER_COUNT"])]
    if share:  # a process that a test starts has it from its parent
        os.sched_setaffinity(0, share)
