"""A mail server for the tests."""

import asyncio
import logging
import ssl
from collections.abc import Generator
from contextlib import contextmanager
from email.message import EmailMessage
from email.parser import BytesParser
from email.policy import default
from typing import Any

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session
from pydantic import SecretStr

from settings import Settings
from tests.server import free_port

SENDER = "stock@example.com"
NAME, SECRET = "stock/room", "p@ss:w#rd"


class PostOffice:
    """A real mail server on this machine, which keeps what it takes."""

    def __init__(self, *, implicit_tls: bool = False, tls: ssl.SSLContext | None = None, login: bool = False) -> None:
        self.mails: list[EmailMessage] = []
        self.recipients: list[list[str]] = []
        self.was_encrypted: list[bool] = []
        self.troubles: list[str] = []  # what it answers to the next mails in place of taking them
        self.attempts = 0
        self.seconds = 0.0  # how long it takes for a mail
        contexts = {"ssl_context" if implicit_tls else "tls_context": tls} if tls else {}
        options: dict[str, Any] = {"authenticator": self._check, "auth_required": True} if login else {}
        self.controller = Controller(self, hostname="127.0.0.1", port=free_port(), **contexts, **options)
        self.url = f"{'smtps' if implicit_tls else 'smtp'}://127.0.0.1:{self.controller.port}"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802 - its name
        self.attempts += 1
        await asyncio.sleep(self.seconds)
        if self.troubles:
            return self.troubles.pop(0)
        assert isinstance(envelope.content, bytes)
        self.mails.append(BytesParser(EmailMessage, policy=default).parsebytes(envelope.content))
        self.recipients.append([str(address) for address in envelope.rcpt_tos])
        self.was_encrypted.append(session.ssl is not None or self.controller.ssl_context is not None)
        return "250 OK"

    def _check(self, _server: SMTP, _session: Session, _envelope: Envelope, _how: str, given: object) -> AuthResult:
        right = LoginPassword(NAME.encode(), SECRET.encode())
        return AuthResult(success=given == right, handled=False)

    @contextmanager
    def open(self) -> Generator["PostOffice"]:
        logging.getLogger("mail.log").setLevel(logging.WARNING)  # the server's own, which is not the app's
        self.controller.start()
        try:
            yield self
        finally:
            self.controller.stop()

    def part(self, kind: str, number: int = -1) -> str:
        """The text or the HTML of a mail."""
        part = self.mails[number].get_body((kind,))
        assert part
        return str(part.get_content()).replace("\r\n", "\n")


def with_mail(settings: Settings, url: str) -> Settings:
    return settings.model_copy(update={"smtp_url": SecretStr(url), "mail_from": SENDER, "log_level": "DEBUG"})
