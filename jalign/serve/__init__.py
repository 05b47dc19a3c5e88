"""Answer requests with models: an engine for this process, an OpenAI-compatible server, a chat."""

from jalign.serve.engine import Engine
from jalign.serve.types import Completion, Limits, Piece, QueueFullError, Request, Token

__all__ = ["Completion", "Engine", "Limits", "Piece", "QueueFullError", "Request", "Token"]
