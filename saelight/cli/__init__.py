"""The `saelight` command. Nothing is imported before the command at hand needs it."""
