"""How notifications leave the platform, from the environment."""

from typing import Annotated, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from cdc_shared.security.references import REFERENCE_PATTERN
from cdc_shared.settings import EnvironmentSettings

Reference = Annotated[str, StringConstraints(pattern=REFERENCE_PATTERN)]
_LOCAL = ("localhost", "127.0.0.1", "::1")


class NotificationSettings(EnvironmentSettings):
    """The mail server, and what signs webhooks. Without `SMTP_HOST`, e-mail channels fail and say so."""

    smtp_host: str | None = Field(
        default=None, validation_alias="SMTP_HOST", description="the mail server's name, for example smtp.example.com"
    )
    smtp_port: int | None = Field(
        default=None,
        validation_alias="SMTP_PORT",
        ge=1,
        le=65535,
        description="its port; left out, 587, 465 with SMTP_SECURITY=tls, 25 with none",
    )
    smtp_security: Literal["starttls", "tls", "none"] = Field(
        default="starttls",
        validation_alias="SMTP_SECURITY",
        description="starttls, tls (from the first byte), or none (a relay on a network that you trust)",
    )
    smtp_user: str | None = Field(default=None, validation_alias="SMTP_USER", description="the name to sign in with")
    smtp_password: Reference | None = Field(
        default=None,
        validation_alias="SMTP_PASSWORD",
        description="a reference to its password: secret:<name> or env:<VARIABLE>",
    )
    smtp_from: str = Field(
        default="cdc-reconciliation@localhost",
        validation_alias="SMTP_FROM",
        pattern=r"^[^@\s<>,;:]+@[^@\s<>,;:]+$",
        description="the sender's address, for example cdc@example.com",
    )
    webhook_secret: Reference | None = Field(
        default=None,
        validation_alias="RECONCILIATION_WEBHOOK_SECRET",
        description="a reference to the secret that webhooks are signed with",
    )
    api_url: str | None = Field(
        default=None,
        validation_alias="RECONCILIATION_LINK_URL",
        pattern=r"^https?://[^\s/]+(/\S*)?$",
        description="where people reach the API, for links in messages, for example https://cdc.example.com",
    )

    @property
    def port(self) -> int:
        """The mail server's port."""
        return self.smtp_port or {"starttls": 587, "tls": 465, "none": 25}[self.smtp_security]

    @model_validator(mode="after")
    def _signs_in_safely(self) -> Self:
        if (self.smtp_user is None) != (self.smtp_password is None):
            raise ValueError("SMTP_USER and SMTP_PASSWORD go together: set both or none")
        if self.smtp_password and self.smtp_security == "none" and self.smtp_host not in _LOCAL:
            raise ValueError("SMTP_SECURITY=none would send the password in clear: use starttls or tls")
        return self
