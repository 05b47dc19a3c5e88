"""Errors as OpenAI's API reports them."""

from __future__ import annotations


class ApiError(Exception):
    """An answer with an error object in place of a result.

    Args:
      status: of HTTP.
      message: one sentence.
      param: the field that is wrong.
      code: of OpenAI, where it has one.
      kind: `type` of the error object.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        kind: str = "invalid_request_error",
    ):
        super().__init__(message)
        self.status, self.param, self.code, self.kind = status, param, code, kind

    def body(self) -> dict[str, dict[str, str | None]]:
        """The JSON object."""
        error = {"message": str(self), "type": self.kind, "param": self.param, "code": self.code}
        return {"error": error}


def bad_field(param: str, message: str, code: str | None = None) -> ApiError:
    """The error of a field with a bad value."""
    return ApiError(400, message, param=param, code=code)
