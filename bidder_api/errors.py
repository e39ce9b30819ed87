"""What the management API refuses, and how it says so.

```
Refused                     any request that is understood and not carried out
├── Unauthenticated   401   no key, or one that is not (or no longer) valid
├── Forbidden         403   a valid key whose role may not do this
├── NotFound          404   no such thing, or someone else's: the same answer
├── Conflict          409   the state does not allow it
└── Invalid           422   well-formed, but against a rule of ours
```
"""


class Refused(Exception):
    """A request that is not carried out, and nothing of it was.

    Args:
        code: stable word for programs.
        message: the rule, and what came instead.
        pointer: JSON pointer (RFC 6901) to the offending part of the body, where there is one.
        status: HTTP status, where the class's own does not fit.
        retryable: whether the same request may succeed later, unchanged.
        headers: what the answer's header must say beside it.
    """

    status = 400

    def __init__(
        self,
        code: str,
        message: str,
        pointer: str | None = None,
        *,
        status: int | None = None,
        retryable: bool = False,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.parameter: str | None = None
        self.pointer = pointer
        self.retryable = retryable
        self.headers = headers or {}
        if status is not None:
            self.status = status


class Unauthenticated(Refused):
    """No valid key."""

    status = 401

    def __init__(self, code: str, message: str) -> None:
        super().__init__(code, message, headers={"WWW-Authenticate": 'Bearer realm="endcap"'})


class Forbidden(Refused):
    """The key's role may not do this."""

    status = 403


class NotFound(Refused):
    """No such thing for this caller."""

    status = 404

    def __init__(self, kind: str, identifier: str) -> None:
        super().__init__(f"{kind}_unknown", f"there is no {kind.replace('_', ' ')} {identifier!r}")


class Conflict(Refused):
    """The state of things does not allow it."""

    status = 409


class Invalid(Refused):
    """Well-formed, but against a rule."""

    status = 422
