"""Mail that is written and kept, for the tests of what is mailed and to whom."""

import re
from email.message import EmailMessage

from kit.app import App
from kit.mail import Mailer

SENDER = "stock@example.com"


class Outbox(Mailer):
    """The mailer of an app that keeps what it writes; how mail is sent is tested on a real mail server."""

    def __init__(self, app: App) -> None:
        super().__init__(app.settings.model_copy(update={"mail_from": SENDER}), app.title)
        self.mails: list[EmailMessage] = []

    async def send(self, template: str, to: str, **values: str) -> None:
        self.mails.append(self.write(template, to, **values))

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
