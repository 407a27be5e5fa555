# What `saelight.convert.<name>` is, for type checkers and editors: `__init__.py` finds it when it is first used.
from saelight.convert.reading import read as read
from saelight.convert.writing import convert as convert
from saelight.convert.writing import write as write
