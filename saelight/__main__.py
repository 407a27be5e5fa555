import sys

from saelight.cli.main import main

sys.exit(main())
