# What `saelight.latents.<name>` is, for type checkers and editors: `__init__.py` finds it when it is first used.
from saelight.latents.latents_reading import read as read
