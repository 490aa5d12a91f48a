"""Mail: what is written, and what becomes of it on a real mail server, whatever that server does."""

import re
import smtplib
import socket
import ssl
from collections.abc import Callable, Generator
from contextlib import ExitStack, closing, contextmanager
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from socketserver import StreamRequestHandler, ThreadingTCPServer
from threading import Thread
from time import monotonic
from typing import Any
from urllib.parse import quote

import httpx2
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from fastapi.testclient import TestClient
from httpx2 import Response

from kit import mail, middleware, outbox
from kit.mail import Mailer
from settings import Settings
from tests.conftest import MakeApp
from tests.outbox import waiting
from tests.people import API, PASSWORD
from tests.post_office import NAME, SECRET, SENDER, PostOffice, with_mail
from tests.server import free_port, serving, until


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """A certificate for this machine that nobody has signed but itself, with its key."""
    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "mail")])
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(datetime.now(UTC) - timedelta(days=1))
    builder = builder.not_valid_after(datetime.now(UTC) + timedelta(days=1))
    address = x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))])
    builder = builder.add_extension(address, critical=False)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    path = tmp_path / "certificate.pem"
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    path.write_bytes(pem + builder.sign(key, SHA256()).public_bytes(Encoding.PEM))
    return path


@pytest.fixture
def tls(certificate: Path) -> ssl.SSLContext:
    """What a mail server with that certificate speaks."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    return context


@pytest.fixture
def trusted(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine trusts the certificate."""
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))


@pytest.fixture
def office() -> Generator[PostOffice]:
    with PostOffice().open() as office:
        yield office


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "PAUSES", [timedelta(0)] * 2)
    monkeypatch.setattr(outbox, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(mail, "SERVER_SECONDS", 1)


@pytest.fixture
def start(settings: Settings, make_app: MakeApp) -> Generator[Callable[..., TestClient]]:
    """Starts the app with a mail server."""
    with ExitStack() as stack:

        def start(url: str) -> TestClient:
            app = make_app(with_mail(settings, url))
            return stack.enter_context(TestClient(app, raise_server_exceptions=False))

        yield start


def register(client: TestClient | httpx2.Client, full_name: str = "Ada", email: str = "ada@example.com") -> Response:
    body = {"email": email, "full_name": full_name, "password": PASSWORD}
    answer = client.post(f"{API}/auth/register", json=body)
    if isinstance(client, TestClient):  # who waits for the mail, too
        app: Any = client.app  # Any: the client calls it any ASGI app
        until(lambda: waiting(app) == 0)
    return answer


# What is written


def test_who_registers_is_welcomed(start: Callable[..., TestClient], office: PostOffice) -> None:
    answer = register(start(office.url))
    [welcome] = office.mails

    assert answer.status_code == 201
    assert (welcome["From"], welcome["To"], welcome["Subject"]) == (SENDER, "ada@example.com", "Welcome to House")
    assert office.recipients == [["ada@example.com"]]


def test_a_mail_has_a_text_and_an_html_part(start: Callable[..., TestClient], office: PostOffice) -> None:
    register(start(office.url))
    kinds = [part.get_content_type() for part in office.mails[0].walk()]

    assert kinds == ["multipart/alternative", "text/plain", "text/html"]
    assert "Hello Ada,\n" in office.part("plain")
    assert "<p>Hello Ada,</p>" in office.part("html")


def test_a_mail_has_a_date_and_an_id_and_asks_for_no_automatic_answer(
    start: Callable[..., TestClient], office: PostOffice
) -> None:
    register(start(office.url))
    [welcome] = office.mails

    assert abs(welcome["Date"].datetime - datetime.now(UTC)) < timedelta(minutes=1)
    assert re.fullmatch(r"<\S+@example\.com>", welcome["Message-ID"])
    assert welcome["Auto-Submitted"] == "auto-generated"


def test_html_shows_a_name_as_it_is(start: Callable[..., TestClient], office: PostOffice) -> None:
    register(start(office.url), full_name='<script>"Ada"</script> & {{ token }} Jürgen')

    assert 'Hello <script>"Ada"</script> & {{ token }} Jürgen,' in office.part("plain")
    assert "Hello &lt;script&gt;&#34;Ada&#34;&lt;/script&gt; &amp; {{ token }} Jürgen," in office.part("html")


@pytest.mark.parametrize("ending", ["\r\n", "\n", "\r", "\u2028", "\x0b"])
def test_a_name_of_several_lines_makes_no_letter_of_somebody_else(
    ending: str, start: Callable[..., TestClient], office: PostOffice
) -> None:
    answer = register(start(office.url), full_name=f"Ada,{ending}{ending}your account ends tomorrow")

    assert (answer.status_code, office.attempts) == (422, 0)


@pytest.mark.parametrize("ending", ["\r\n", "\n", "\r", "\u2028", "\x0b"])
def test_a_name_adds_no_header_and_nobody_who_gets_the_mail(ending: str, office: PostOffice) -> None:
    plain = ["Subject", "From", "To", "Date", "Message-ID", "Auto-Submitted", "MIME-Version", "Content-Type"]
    name = f"Ada{ending}Bcc: eve@example.com{ending}{ending}.{ending}QUIT"
    Mailer(with_mail(Settings(), office.url), "House").send("welcome", "ada@example.com", full_name=name)

    assert sorted(name for name in office.mails[0] if not name.startswith("X-")) == sorted(plain)
    assert office.recipients == [["ada@example.com"]]


@pytest.mark.parametrize(
    "email",
    [
        "ada@example.com\r\nBcc: eve@example.com",
        "ada@example.com,eve@example.com",
        "ada@example.com eve@example.com",
        '"ada\r\nBcc: eve"@example.com',
        "ada@example.com\n",
        "Ada <ada@example.com>",
        "ada\0@example.com",
    ],
)
def test_an_address_is_one_address(email: str, start: Callable[..., TestClient], office: PostOffice) -> None:
    answer = register(start(office.url), email=email)

    assert (answer.status_code, office.recipients) in [(422, []), (201, [["ada@example.com"]])]
    assert answer.status_code == 422 or email.strip() == "ada@example.com"


def test_who_is_not_registered_is_not_welcomed(start: Callable[..., TestClient], office: PostOffice) -> None:
    client = start(office.url)
    register(client)
    answer = register(client)

    assert answer.json()["error_code"] == "EMAIL_TAKEN"
    assert len(office.mails) == 1


# How it is sent


def test_a_server_without_tls_gets_mail_as_it_is(start: Callable[..., TestClient], office: PostOffice) -> None:
    register(start(office.url))

    assert office.was_encrypted == [False]


@pytest.mark.parametrize("implicit_tls", [False, True])
@pytest.mark.usefixtures("trusted")
def test_mail_is_encrypted_where_the_server_offers_it(
    implicit_tls: bool, tls: ssl.SSLContext, start: Callable[..., TestClient]
) -> None:
    with PostOffice(tls=tls, implicit_tls=implicit_tls).open() as office:
        register(start(office.url))

    assert office.was_encrypted == [True]


@pytest.mark.parametrize("implicit_tls", [False, True])
def test_a_server_with_a_certificate_that_nobody_vouches_for_gets_no_mail(
    implicit_tls: bool, tls: ssl.SSLContext, start: Callable[..., TestClient], capsys: pytest.CaptureFixture[str]
) -> None:
    with PostOffice(tls=tls, implicit_tls=implicit_tls).open() as office:
        answer = register(start(office.url))

    assert (answer.status_code, office.attempts) == (201, 0)
    assert "welcome 1 failed: SSLCertVerificationError" in capsys.readouterr().err


@pytest.mark.usefixtures("trusted")
def test_a_certificate_for_another_name_is_not_trusted(tls: ssl.SSLContext, start: Callable[..., TestClient]) -> None:
    with PostOffice(tls=tls).open() as office:
        register(start(office.url.replace("127.0.0.1", "localhost")))

    assert office.attempts == 0


@pytest.mark.usefixtures("trusted")
def test_the_app_signs_in_where_the_url_says_so(tls: ssl.SSLContext, start: Callable[..., TestClient]) -> None:
    with PostOffice(tls=tls, login=True).open() as office:
        register(start(office.url.replace("//", f"//{quote(NAME, safe='')}:{quote(SECRET, safe='')}@")))

    assert len(office.mails) == 1


@pytest.mark.parametrize("password", ["hunter2", "hünter2"])
@pytest.mark.usefixtures("trusted")
def test_a_login_that_the_server_refuses_is_in_the_log_without_the_password(
    password: str, tls: ssl.SSLContext, start: Callable[..., TestClient], capsys: pytest.CaptureFixture[str]
) -> None:
    with PostOffice(tls=tls, login=True).open() as office:
        answer = register(start(office.url.replace("//", f"//somebody:{quote(password)}@")))
    log = capsys.readouterr().err

    assert (answer.status_code, office.attempts) == (201, 0)
    assert "welcome 1 is given up after 3 attempts" in log
    assert password not in log


def test_whoever_sends_hears_of_a_failure(office: PostOffice) -> None:
    mailer, office.troubles = Mailer(with_mail(Settings(), office.url), "House"), ["451 try again"]

    with pytest.raises(smtplib.SMTPException):
        mailer.send("welcome", "ada@example.com", full_name="Ada")
    assert office.attempts == 1


# What goes wrong


@pytest.mark.parametrize("trouble", ["451 try again", "421 closing", "550 no such user", "999 nonsense"])
def test_a_mail_that_is_refused_is_sent_again(
    trouble: str, start: Callable[..., TestClient], office: PostOffice, capsys: pytest.CaptureFixture[str]
) -> None:
    office.troubles = [trouble] * 2
    register(start(office.url))

    assert (office.attempts, len(office.mails)) == (3, 1)
    assert capsys.readouterr().err.count("welcome 1 failed: ") == 2


def test_a_mail_that_is_refused_again_and_again_is_given_up(
    start: Callable[..., TestClient], office: PostOffice, capsys: pytest.CaptureFixture[str]
) -> None:
    office.troubles = ["451 try again"] * 100
    answer = register(start(office.url))
    log = capsys.readouterr().err

    assert (answer.status_code, office.attempts, office.mails) == (201, 3, [])
    assert log.count("welcome 1 is given up after 3 attempts") == 1
    assert "Traceback" not in log


@contextmanager
def refusing() -> Generator[str]:
    """Nobody listens there."""
    yield f"smtp://127.0.0.1:{free_port()}"


@contextmanager
def hanging() -> Generator[str]:
    """A server that takes a call and says nothing."""
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        yield f"smtp://127.0.0.1:{listener.getsockname()[1]}"


class DyingConversation(StreamRequestHandler):
    def handle(self) -> None:
        self.wfile.write(b"220 mail\r\n")
        self.rfile.readline()


@contextmanager
def dying() -> Generator[str]:
    """A server that greets, and dies of the first command."""
    with ThreadingTCPServer(("127.0.0.1", 0), DyingConversation) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield f"smtp://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


@contextmanager
def unknown() -> Generator[str]:
    """A name that is none."""
    yield f"smtp://{'x' * 64}.invalid"


@pytest.mark.parametrize("trouble", [refusing, hanging, dying, unknown])
def test_a_server_in_trouble_is_in_the_log_and_in_no_answer(
    trouble: Callable[[], Any], start: Callable[..., TestClient], capsys: pytest.CaptureFixture[str]
) -> None:
    with trouble() as url:
        answer = register(start(url))
    log = capsys.readouterr().err

    assert answer.status_code == 201
    assert (log.count("welcome 1 failed: "), log.count("is given up")) == (3, 1)
    assert "Traceback" not in log


@pytest.mark.parametrize("trouble", [refusing, hanging, dying, unknown])
def test_no_answer_waits_for_a_server_in_trouble(
    trouble: Callable[[], Any], settings: Settings, make_app: MakeApp
) -> None:
    with trouble() as url, serving(make_app(with_mail(settings, url))) as client:
        started = monotonic()
        answers = [register(client, email=f"{number}@example.com") for number in range(6)]
        answers += [client.post(f"{API}/auth/password-reset", json={"email": "0@example.com"}) for _ in range(6)]

    assert [answer.status_code for answer in answers] == [201] * 6 + [202] * 6
    assert monotonic() - started < 6  # one mail to the server that hangs takes three seconds


def test_a_mail_to_a_slow_server_comes_after_the_answer(
    settings: Settings, make_app: MakeApp, office: PostOffice
) -> None:
    office.seconds = 0.5
    with serving(make_app(with_mail(settings, office.url))) as client:
        answer = register(client)

        assert (answer.status_code, office.mails) == (201, [])
        until(lambda: len(office.mails) == 1)


def test_a_mail_that_waits_takes_nobodys_place(
    settings: Settings, make_app: MakeApp, office: PostOffice, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(middleware, "MAX_IN_FLIGHT", 2)
    office.seconds = 0.5
    with serving(make_app(with_mail(settings, office.url))) as client:
        answers = [register(client, email=f"{number}@example.com").status_code for number in range(8)]

        assert answers == [201] * 8
        assert len(office.mails) < 6


# Without a server


def test_without_a_server_a_mail_is_only_logged(
    settings: Settings, make_app: MakeApp, capsys: pytest.CaptureFixture[str]
) -> None:
    with TestClient(make_app(settings.model_copy(update={"log_level": "DEBUG"}))) as client:
        register(client)
    log = capsys.readouterr().err

    assert "Mail is off; this would go to ada@example.com: Hello Ada," in log


def test_without_a_server_a_mail_is_logged_for_developers_only(
    settings: Settings, make_app: MakeApp, capsys: pytest.CaptureFixture[str]
) -> None:
    with TestClient(make_app(settings)) as client:
        register(client)

    assert "Mail is off" not in capsys.readouterr().err
