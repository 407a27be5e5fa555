# What `saelight.sweep.<name>` is, for type checkers and editors: `__init__.py` finds it when it is first used.
from saelight.sweep.execute.in_memory import run as run
