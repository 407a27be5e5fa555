import sys

from saelight.cli import main

sys.exit(main())
