"""The record of a run, and what people see of it."""

from jalign.log.display import Display
from jalign.log.logger import Logger
from jalign.log.record import RunLog

__all__ = ["Display", "Logger", "RunLog"]
