"""What every jsonargparse parser of saelight needs to know, set once."""

import os
import sys

from jsonargparse import set_parsing_settings

from saelight.saes import SAEConfig

# Lightning calls methods that jsonargparse will rename; its users can do nothing about it.
os.environ.setdefault("JSONARGPARSE_DEPRECATION_WARNINGS", "off")

# Help shows the fields' docstrings; reading them off the sources takes half a second.
_explains = any("help" in word or "print_config" in word for word in sys.argv)
# A dict of SAEConfig in a signature accepts any variant, by class path.
set_parsing_settings(subclasses_enabled=[SAEConfig], docstring_parse_attribute_docstrings=_explains)
