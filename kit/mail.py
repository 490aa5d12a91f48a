"""Mail: written from templates, and handed to a server. What sends it, and tries again, is `kit.outbox`."""

import smtplib
import ssl
from email.message import EmailMessage
from email.utils import localtime, make_msgid
from pathlib import Path
from urllib.parse import unquote, urlsplit

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from loguru import logger

from kit.settings import KitSettings

TEMPLATES = Path(__file__).parent.parent / "templates" / "mail"
SECRETS = {"token": "(not shown)", "link": ""}
SERVER_SECONDS = 4.0  # for each step that a mail server takes


class Mailer:
    """Writes and sends the mail of one app; who calls it may block."""

    def __init__(self, settings: KitSettings, product: str) -> None:
        self.settings = settings
        self.product = product
        # Of the two parts only the HTML one needs escaping.
        self.text = Environment(loader=FileSystemLoader(TEMPLATES), undefined=StrictUndefined, autoescape=False)  # noqa: S701
        self.html = self.text.overlay(autoescape=True)

    def send(self, template: str, to: str, **values: str) -> None:
        """Send one mail; without a mail server it is only logged, at DEBUG.

        Raises:
            OSError: the server cannot be reached.
            smtplib.SMTPException: it refuses the mail.
            ValueError: a name or a password cannot be put into words of SMTP.
        """
        if self.settings.smtp_url is None:
            _, text = self._words(template, values | {k: v for k, v in SECRETS.items() if k in values})
            logger.debug("Mail is off; this would go to {}: {}", to, text)
            return
        _deliver(self.write(template, to, **values), self.settings)
        logger.info("The mail {!r} was sent to {}", template, to)

    def write(self, template: str, to: str, **values: str) -> EmailMessage:
        """A mail with a text and an HTML part; the first line of the text's template is the subject."""
        subject, text = self._words(template, values)
        message = EmailMessage()
        message["Subject"] = subject
        message["From"] = str(self.settings.mail_from)
        message["To"] = to
        message["Date"] = localtime()
        message["Message-ID"] = make_msgid(domain=str(self.settings.mail_from).rpartition("@")[2])
        message["Auto-Submitted"] = "auto-generated"  # no answer of somebody who is away, please
        message.set_content(text)
        html = self.html.get_template(f"{template}.html").render(values, product=self.product)
        message.add_alternative(html, subtype="html")
        return message

    def _words(self, template: str, values: dict[str, str]) -> tuple[str, str]:
        rendered = self.text.get_template(f"{template}.txt").render(values, product=self.product)
        subject, _, text = rendered.partition("\n")
        return subject.removeprefix("Subject: "), text.lstrip("\n")


def _deliver(message: EmailMessage, settings: KitSettings) -> None:
    """Hand one mail to the server; with TLS from the first byte (smtps), or from where the server offers it.

    A certificate that cannot be trusted is a failure: the mail would be shown to whoever stands between.
    """
    assert settings.smtp_url is not None  # noqa: S101 - the caller looked
    url = urlsplit(settings.smtp_url.get_secret_value())
    host, context = url.hostname or "", ssl.create_default_context()
    if url.scheme == "smtps":
        server = smtplib.SMTP_SSL(host, url.port or 465, timeout=SERVER_SECONDS, context=context)
    else:
        server = smtplib.SMTP(host, url.port or 587, timeout=SERVER_SECONDS)
    with server:
        server.ehlo()
        if url.scheme == "smtp" and server.has_extn("starttls"):
            server.starttls(context=context)
        if url.username:
            server.login(unquote(url.username), unquote(url.password or ""))
        server.send_message(message)
