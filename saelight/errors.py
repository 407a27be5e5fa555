"""The one exception for what a user can mend: the CLI prints it as a single line and exits with 1."""


class UserError(ValueError):
    """Bad input. The message is one line that says what is wrong and what to do about it."""
