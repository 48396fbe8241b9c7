"""One's own account, through the API."""

from control_plane.client.connection import Connection
from control_plane.client.session import Password
from control_plane.models.auth import Me, PasswordChange


class Account:
    """Who is signed in."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def me(self) -> Me:
        return self._connection.get(Me, "/api/v1/auth/me")

    def change_password(self, current: str, new: str) -> None:
        """Change one's own password; one's other sessions end. This client signs in with the new one from now on."""
        body = PasswordChange(current_password=current, new_password=new).model_dump()
        self._connection.request("POST", "/api/v1/auth/password", json=body)
        if self._connection.session is not None:
            self._connection.session.use(Password(self.me().name, new))

    def sign_out(self) -> None:
        """End the session. The next call starts another."""
        self._connection.request("POST", "/api/v1/auth/logout")
        if self._connection.session is not None:
            self._connection.session.forget()
