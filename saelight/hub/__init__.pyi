# What `saelight.hub.<name>` is, for type checkers and editors: `__init__.py` finds it when it is first used.
from saelight.hub.pushing import push as push
