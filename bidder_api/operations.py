"""Every operation there is, in one table: who may call it, what it takes and what it answers.

The guard lets in by this table and the OpenAPI document is written from it, so neither can drift from the other.
"""

from msgspec import Struct

from bidder_api.access import Role

ANYBODY: frozenset[str] = frozenset()
KIB = 1024


class Operation(Struct, frozen=True, kw_only=True):
    """One method on one path.

    Attributes:
        name: OpenAPI's operationId.
        roles: whose keys may call it, besides an admin's; ANYBODY needs no key.
        body: type the guard decodes the body with; None where there is none.
        answer: type of the successful answer's body; None where it has none.
        query: type of the query parameters, decoded by the guard too; None where the handler reads them itself.
        status: of success; `also_status` is a second one, such as 201 where a PUT made something.
        is_hot: the handler reads and decodes the body itself.
        is_cross_origin: browsers may call it from other origins.
        takes_idempotency_key: `Idempotency-Key` makes sending it again safe.
        needs_if_match: `If-Match` must carry the ETag of what is changed.
        answer_type: media type of the answer; `table_types` are others that `Accept` may ask for.
    """

    method: str
    path: str
    name: str
    summary: str
    tag: str
    roles: frozenset[str]
    body: object | None = None
    answer: object | None = None
    query: type[Struct] | None = None
    status: int = 200
    also_status: int | None = None
    body_size_max: int = 256 * KIB
    is_hot: bool = False
    is_cross_origin: bool = False
    takes_idempotency_key: bool = False
    needs_if_match: bool = False
    answer_type: str = "application/json"
    table_types: tuple[str, ...] = ()

    @property
    def segments(self) -> tuple[str, ...]:
        """Return the path's parts; one in braces stands for any."""
        return tuple(self.path.split("/")[1:])

    @property
    def parameters(self) -> list[str]:
        """Return the names of the path's parameters."""
        return [segment[1:-1] for segment in self.segments if segment.startswith("{")]

    def admits(self, role: str) -> bool:
        """Say whether a key of that role may call it."""
        return role in self.roles or role == Role.ADMIN or not self.roles
