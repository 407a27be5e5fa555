"""What every jsonargparse parser of saelight needs to know, set once."""

import os

from jsonargparse import set_parsing_settings

from saelight.saes import SAEConfig

# Lightning calls methods that jsonargparse will rename; its users can do nothing about it.
os.environ.setdefault("JSONARGPARSE_DEPRECATION_WARNINGS", "off")

# A dict of SAEConfig in a signature accepts any variant, by class path, and help shows the fields' docstrings.
set_parsing_settings(subclasses_enabled=[SAEConfig], docstring_parse_attribute_docstrings=True)
