"""The root and the families of errors. Whoever catches broadly catches a family, not `Exception`."""


class SpillwayError(Exception):
    """Anything Spillway itself reports. Its text is for people and holds no prompt, completion or secret."""


class ConfigError(SpillwayError):
    """A configuration that cannot be used. The text names the file and the line where they are known."""


class BadRequestError(SpillwayError):
    """A message from a client that cannot be understood. `param` names the field at fault, `code` the kind."""

    def __init__(self, message: str, *, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.param = param
        self.code = code


class StoreError(SpillwayError):
    """The database or the spool cannot do what was asked now."""


class UsageError(SpillwayError):
    """A command line that cannot be understood: exit status 2."""


class ClashError(StoreError):
    """A row is there already, or one that it refers to is not, or one that refers to it still is; or it was changed meanwhile."""
