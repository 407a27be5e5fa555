"""What a runner shows while its runs train."""

import io

from saelight.sweep.execute.progress_line import Progress, line


def row(group: str, state: str = "running", steps: int | None = None) -> dict:
    return {"group": group, "state": state, "steps": steps, "of_steps": steps and 200, "eta": steps and 200.0 - steps}


ROWS = [
    row("group-000", "finished", 200),
    row("group-000", "retired", 50),
    row("group-001", steps=50),
    row("group-001", steps=50),
    row("group-002"),
    row("group-003", "waiting"),
]


def test_the_line_says_what_has_ended_and_how_far_each_run_is():
    assert line(ROWS) == "2 of 6 SAEs ended; group-001 25 %, 2:30 left; group-002 starts"
    assert line([row(f"group-{i}") for i in range(5)]).endswith("group-2 starts; 2 more run")


def test_a_terminal_shows_one_line_in_place_below_what_stays(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    progress = Progress(terminal)
    progress.update(ROWS)
    progress.update(ROWS)
    progress.say("group-001: finished (1)")
    moving = line(ROWS)[:79]
    assert terminal.getvalue() == f"{moving}\r\x1b[K{moving}\r\x1b[Kgroup-001: finished (1)\n"


def test_a_log_gets_a_line_now_and_then():
    log = io.StringIO()
    Progress(log).update(ROWS)
    assert log.getvalue() == ""
    progress = Progress(log, every=0)
    progress.update(ROWS)
    progress.say("group-001: finished (1)")
    assert log.getvalue() == f"{line(ROWS)}\ngroup-001: finished (1)\n"
