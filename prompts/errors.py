"""The one exception of this room; it holds no logic and knows nothing of how it is shown."""


class PromptError(Exception):
    """A request to this room was wrong: an unknown name, a missing slot, a faulty template.

    The message is one line: the object, what was found, what was expected, what to do.
    """

    exit_code: int = 2
