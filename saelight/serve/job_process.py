"""What a job needs torch for, as processes of their own that end with the server: `python -m saelight.serve.job_process …`

devices WANTED             the names of these devices, as JSON
plan SWEEP FOLDER DEVICE   check a sweep against its data and the device, and make its folder
train FOLDER DEVICE        become `saelight sweep run`, which goes on from where the sweep is
"""

import json
import os
import sys
from collections.abc import Callable

from saelight.errors import UserError
from saelight.sweep.execute.child import end_with_parent


def _devices(wanted: str) -> int:
    from saelight.sweep.execute import devices

    print(json.dumps([device.name for device in devices.choose(wanted, devices.find())]))
    return 0


def _plan(sweep: str, folder: str, device: str) -> int:
    from saelight.sweep.execute.oversize import too_large
    from saelight.sweep.execute.session import Request, Session

    session = Session(Request(sweep, out=folder, devices=device))
    with session.locked():
        session.prepare()
        large = too_large([(group, session.entries(group)) for group in session.to_run()], session.launcher)
        if problems := [*session.index.missing, *large.values()]:
            raise UserError(problems[0])
        session.folder.commit(session.index)
    return 0


def _train(folder: str, device: str) -> int:
    command = [sys.executable, "-m", "saelight", "sweep", "run", folder, "--resume", "--devices", device]
    os.execv(command[0], command)


_ACTIONS: dict[str, Callable[..., int]] = {"devices": _devices, "plan": _plan, "train": _train}

if __name__ == "__main__":
    end_with_parent()
    try:
        sys.exit(_ACTIONS[sys.argv[1]](*sys.argv[2:]))
    except UserError as error:
        print(f"saelight: error: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(1)
