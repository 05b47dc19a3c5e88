"""The error of a run, a command or a pipeline that is described wrongly."""


class ConfigError(ValueError):
    """A config file or an option is wrong; the message is for the person who wrote it."""
