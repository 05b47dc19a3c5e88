"""The error of a wrong config, option or pipeline file."""


class ConfigError(ValueError):
    """A config file or an option is wrong; the message is for the person who wrote it."""
