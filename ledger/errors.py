"""What the ledger refuses, as exceptions with a stable code.

::

    LedgerRefused                     code, status, retryable, pointer
    ├── BeaconRefused                 forged, expired, from_the_future                     404 on a redirect
    ├── RequestRefused                the body, a field, or a filter breaks a rule         400, 413
    ├── NotAllowed                    this caller may not say that                          403
    ├── FormatMissing                 format_not_installed                                  406
    ├── NotFound                      unknown_transaction, unknown_product, …               404
    ├── ConflictRefused               already_reversed, reference_in_use, …                 409
    └── LedgerUnavailable             storage_full, storage_gone, writer_gone               503, retryable

    LedgerBroken                      a promise of our own does not hold: never caught to carry on
    └── StorageFailed                 what was written may not be on disk: the process must end
"""


class LedgerRefused(Exception):  # a refusal is an answer, not an error
    """A request the ledger does not carry out; nothing of it was written.

    Attributes:
        code: stable word for programs.
        status: HTTP's number for it.
        retryable: True where the same request may succeed later.
        pointer: JSON pointer to what is wrong in the body, or None.
    """

    status = 400
    retryable = False

    def __init__(self, code: str, message: str | None = None, pointer: str | None = None) -> None:
        super().__init__(message or code)
        self.code = code
        self.pointer = pointer


class BeaconRefused(LedgerRefused):
    """A token that is not, or no longer, a promise of ours."""

    status = 404


class RequestRefused(LedgerRefused):
    """A body or parameter that breaks a rule."""

    status = 400


class BodyTooLarge(LedgerRefused):
    """More bytes than the surface takes."""

    status = 413


class NotAllowed(LedgerRefused):
    """Something this caller may not say or see."""

    status = 403


class FormatMissing(LedgerRefused):
    """A format that needs a library which is not installed."""

    status = 406


class NotFound(LedgerRefused):
    """Something that does not exist, or not for this caller."""

    status = 404


class ConflictRefused(LedgerRefused):
    """Something that contradicts what is already in the books."""

    status = 409


class LedgerUnavailable(LedgerRefused):
    """Not now: nothing was acknowledged, the same ids may be sent again."""

    status = 503
    retryable = True
    retry_after_s = 1


class LedgerBroken(Exception):  # named for what it says
    """The books would stop being right: an unbalanced transaction, a budget passed, a chain that does not fit."""


class StorageFailed(LedgerBroken):
    """Storage said that what was written may be lost; only a new process may trust it again."""
