"""Mail that is written and kept, for the tests of what is mailed and to whom."""

import re
from email.message import EmailMessage

from fastapi.testclient import TestClient
from sqlmodel import col, func, select

from kit.app import App
from kit.mail import Mailer
from kit.outbox import OutboxEntry
from tests.server import until

SENDER = "stock@example.com"


def waiting(app: App) -> int:
    """How many entries of the outbox are neither done nor given up."""
    waiting = select(func.count()).where(col(OutboxEntry.done_at).is_(None), col(OutboxEntry.given_up_at).is_(None))
    with app.state.database.read() as session:
        return session.exec(waiting).one()


def finish(app: App, client: TestClient) -> None:
    """Do what is in the outbox, whether or not the app does it by itself."""
    assert client.portal
    while client.portal.call(app.state.outbox.do_next):
        pass
    until(lambda: waiting(app) == 0)


class Outbox(Mailer):
    """The mailer of an app that keeps what it writes; how mail is sent is tested on a real mail server."""

    def __init__(self, app: App, client: TestClient) -> None:
        super().__init__(app.settings.model_copy(update={"mail_from": SENDER}), app.title)
        self.app = app
        self.client = client
        self.sent: list[EmailMessage] = []
        finish(app, client)  # what is from before goes to the mailer from before

    def send(self, template: str, to: str, **values: str) -> None:
        self.sent.append(self.write(template, to, **values))

    @property
    def mails(self) -> list[EmailMessage]:
        """What was mailed, when everything is sent that waits for it."""
        finish(self.app, self.client)
        return self.sent

    def part(self, kind: str) -> str:
        """The text or the HTML of the last mail."""
        part = self.mails[-1].get_body((kind,))
        assert part
        return str(part.get_content()).replace("\r\n", "\n")

    @property
    def tokens(self) -> list[str]:
        """The tokens that were mailed, in this order."""
        texts = [str(part.get_content()) for mail in self.mails if (part := mail.get_body(("plain",)))]
        return [token for text in texts for token in re.findall(r"^(\S{43})\r?$", text, re.MULTILINE)]
