"""Who may administer: services of the role admin, and users who are administrators. The last must not go."""

from credentiald.errors import InvalidArgument
from credentiald.model import Role
from credentiald.store.connection import Connection


def refuse_if_none(conn: Connection, *, field: str) -> None:
    """InvalidArgument where the transaction so far leaves nobody who could administer; it is then rolled back."""
    row = conn.execute(
        "SELECT (SELECT count(*) FROM services WHERE role = ? AND (has_token = 1"
        " OR EXISTS (SELECT 1 FROM service_certificates WHERE service_id = services.id)))"
        " + (SELECT count(*) FROM users WHERE admin = 1 AND suspended = 0) AS left_over",
        (Role.ADMIN.value,),
    ).fetchone()
    if row is None or not row["left_over"]:
        raise InvalidArgument(field=field, problem="is the last administrator: make another one first")
