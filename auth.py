"""Who calls, and everything below `/auth`: registration, the token endpoint, login sessions, forgotten passwords."""

from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import Depends, Query, Request, Response
from fastapi import Form as FormBody
from pydantic import BaseModel, ValidationError
from sqlalchemy.exc import IntegrityError
from sqlmodel import Session, col, delete, func, select

from kit.app import App
from kit.audit import act_as
from kit.auth import (
    PASSWORD_RULE,
    GivenPassword,
    Hashing,
    check_password,
    hash_password,
    nobodys_hash,
    renewed_hash,
    rounds_of,
    sign_access_token,
    take_as_long_as,
)
from kit.db import Database, ReadSession, WriteSession, ending
from kit.errors import Credentials, problems
from kit.forms import Form, Sent, SentForm, local_path
from kit.models import Email, Id, RequestBody, normalized_email, now
from kit.outbox import OutboxEntry
from kit.pages import PageRouter, See, Template
from kit.problems import BadRequest, Forbidden, InvalidCredentials, Problem, TooManyAttempts
from kit.routing import Caller, Prepared, Router
from kit.sessions import FailedSignIn, LoginSession, LoginSessionPublic, PasswordReset
from kit.settings import StartRefused
from kit.strict import FORBIDDEN_TEXT
from kit.visits import page_token, session_seconds, visit_of
from models import (
    EmailTaken,
    PasswordResetRequest,
    PasswordResetUse,
    Principal,
    RegistrationClosed,
    User,
    UserCreate,
    UserPublic,
    UserRegister,
)
from settings import API, Settings

CREDENTIALS = Credentials(
    prefix=f"{API}/auth/",
    token_path=f"{API}/auth/token",
    sign_in="/sign-in",
    forms=("/sign-in", "/sign-up", "/password-reset", "/account/password"),
    secret_paths=("/password-reset/",),
)

current_user = Caller(Principal.read)
admin_user = Caller(Principal.read, Principal.require_admin, problems=(Forbidden,))
CurrentUser = Annotated[Principal, Depends(current_user)]
AdminUser = Annotated[Principal, Depends(admin_user)]
Visitor = Annotated[Principal | None, Depends(current_user)]
"""Who calls, on a page that is for everybody: give it the default None."""

public_router = Router(public=True, prefix=f"{API}/auth", tags=["auth"])  # all that works without an access token
router = Router(prefix=f"{API}/auth", tags=["auth"])
pages = PageRouter(public=True)


class UnsupportedGrantType(Problem):
    """400: a grant type that the token endpoint does not offer (RFC 6749, 5.2)."""

    code = "BAD_REQUEST"
    detail = "The grant type must be 'password' or 'refresh_token'."
    oauth_error = "unsupported_grant_type"


# Passwords


@dataclass(frozen=True)
class Proof:
    """What one check of a password found; it counts only after `accept`."""

    account: str
    """Whose failures are counted."""
    user_id: int | None = None
    password_hash: str = ""
    renewed_hash: str = ""
    """The same password with the rounds of today, where its hash has others."""


def check_credentials(database: Database, settings: Settings, email: str, password: str) -> Proof:
    """Check a password in the time of the slowest hash there is, whether or not there is such an account.

    Raises:
        TooManyAttempts: signing in to this account failed too often of late.
    """
    email, rounds = normalized_email(email), settings.bcrypt_rounds
    with database.read() as session:
        user = session.exec(select(User).where(User.email == email)).one_or_none()
        account = user.account if user else f"e-mail {email}"  # not an account's name, whatever is typed
        FailedSignIn.refuse_blocked(session, account, settings.login_attempts)
        slowest = max(rounds, int(session.exec(select(func.max(func.substr(User.password_hash, 5, 2)))).one() or 0))
    password_hash = user.password_hash if user else nobodys_hash(slowest)
    right = check_password(password, password_hash)
    take_as_long_as(slowest, password_hash)
    if not user or not right or not user.is_active:
        return Proof(account)
    is_of_today = rounds_of(password_hash) == rounds
    return Proof(account, user.id, password_hash, "" if is_of_today else renewed_hash(password, password_hash, rounds))


def accept(session: Session, proof: Proof, settings: Settings) -> User:
    """Count the result of a check, and return the account if it is still the one that was checked.

    What happened while the hash was computed (a password change, a deactivation, a deletion, other guesses) wins.

    Raises:
        InvalidCredentials: the password was wrong, or the account is unknown, inactive or changed.
        TooManyAttempts: other guesses used up the attempts meanwhile.
    """
    attempts, window = settings.login_attempts, timedelta(seconds=settings.login_window_seconds)
    FailedSignIn.refuse_blocked(session, proof.account, attempts, lock=True)
    user = session.get(User, proof.user_id, with_for_update=True) if proof.user_id else None
    if user is None or not user.is_active or user.password_hash not in (proof.password_hash, proof.renewed_hash):
        FailedSignIn.count(session, proof.account, attempts, window)
        raise InvalidCredentials
    FailedSignIn.clear(session, proof.account)
    if proof.renewed_hash:
        user.renew_hash(session, proof.renewed_hash)
    return user


# Registration


def _registered_password_hash(request: Request, data: UserRegister) -> Hashing:
    settings: Settings = request.app.state.settings
    if not settings.registration_open:
        raise RegistrationClosed
    return Hashing(data.email, partial(hash_password, data.password, settings.bcrypt_rounds))


@public_router.post(
    "/register", status_code=201, response_model=UserPublic, responses=problems(EmailTaken, RegistrationClosed)
)
def register(
    data: UserRegister,
    password_hash: Annotated[str, Prepared(_registered_password_hash)],
    session: WriteSession,
) -> User:
    """Make an account of one's own; the first one ever is an admin, every later one a member."""
    OutboxEntry.put(session, "welcome", email=data.email, full_name=data.full_name)
    return User.create(session, data, password_hash)


# The token endpoint


class TokenForm(BaseModel):
    """The form of RFC 6749, 4.3.2 and 6; fields beyond these are ignored."""

    grant_type: str = "password"
    username: str = ""
    password: str = ""
    refresh_token: str = ""


class TokenPair(BaseModel):
    """The answer of the token endpoint (RFC 6749, 5.1)."""

    access_token: str
    token_type: str = "bearer"  # noqa: S105 - the name of a kind of token
    expires_in: int
    refresh_token: str


def _checked_grant(request: Request, form: TokenForm) -> Hashing | None:
    """Have the password checked, if that is what the form brings."""
    if any(FORBIDDEN_TEXT.search(text) for text in form.model_dump().values()):
        raise BadRequest("The form has a NUL or half a character in it.")
    match form.grant_type:
        case "password" if form.username and form.password:
            state = request.app.state
            check = partial(check_credentials, state.database, state.settings, form.username, form.password)
            return Hashing(normalized_email(form.username), check)
        case "password":
            raise BadRequest("Send the form fields username and password.")
        case "refresh_token" if form.refresh_token:
            return None
        case "refresh_token":
            raise BadRequest("Send the form field refresh_token.")
        case _:
            raise UnsupportedGrantType


@public_router.post("/token", responses=problems(InvalidCredentials, TooManyAttempts))
def create_token(
    request: Request,
    form: Annotated[TokenForm, FormBody()],
    proof: Annotated[Proof | None, Prepared(_checked_grant)],
    session: WriteSession,
) -> TokenPair:
    """Sign in with e-mail and password, or refresh: spend a refresh token for a new pair (RFC 6749).

    A refresh token that was spent already ends its whole session. Errors also carry `error` and `error_description`.
    """
    settings: Settings = request.app.state.settings
    if proof is None:
        return _token_pair(request, *LoginSession.refresh(session, form.refresh_token, settings.session_lifetime))
    return _token_pair(request, *_start_session(request, session, accept(session, proof, settings)))


def _start_session(request: Request, session: Session, user: User) -> tuple[LoginSession, str]:
    """A new login session, and its first refresh token."""
    lifetime = request.app.state.settings.session_lifetime
    ip = request.client.host if request.client else ""
    return LoginSession.start(session, user.id, lifetime, user_agent=request.headers.get("user-agent", ""), ip=ip)


def _token_pair(request: Request, login_session: LoginSession, refresh_token: str) -> TokenPair:
    """A new access token beside the refresh token of its session."""
    lifetime = request.app.state.settings.access_token_lifetime
    token = sign_access_token(request.app.state.secret_key, login_session.user_id, login_session.id, lifetime)
    return TokenPair(access_token=token, expires_in=int(lifetime.total_seconds()), refresh_token=refresh_token)


# Login sessions


@router.get("/sessions")
def list_sessions(user: CurrentUser, session: ReadSession) -> list[LoginSessionPublic]:
    """List where the caller is signed in, the latest use first."""
    mine = select(LoginSession).where(LoginSession.user_id == user.id, LoginSession.expires_at > now())
    rows = session.exec(mine.order_by(col(LoginSession.last_used_at).desc(), col(LoginSession.id)))
    return [LoginSessionPublic.model_validate(row, update={"current": row.id == user.session_id}) for row in rows]


@router.delete("/sessions/current", status_code=204)
def end_current_session(user: CurrentUser, session: WriteSession) -> None:
    """Sign out here."""
    session.delete(session.get_one(LoginSession, user.session_id))


@router.delete("/sessions/{session_id}", status_code=204)
def end_session(session_id: Id, user: CurrentUser, session: WriteSession) -> None:
    """Sign out there: end one of the caller's sessions."""
    mine = select(LoginSession).where(LoginSession.user_id == user.id)
    session.delete(session.get_one(LoginSession, session_id, among=mine))


@router.delete("/sessions", status_code=204)
def end_all_sessions(user: CurrentUser, session: WriteSession) -> None:
    """Sign out everywhere, here included."""
    LoginSession.end_all(session, user.id)


# Forgotten passwords


@public_router.post("/password-reset", status_code=202, response_class=Response)
def request_password_reset(data: PasswordResetRequest, session: WriteSession) -> Response:
    """Ask for a mail with a one-time token; whoever asks, the answer is the same and waits for no mail server."""
    OutboxEntry.put(session, "password-reset", email=data.email)
    return Response(status_code=202)


def _hash_for_living_token(request: Request, data: PasswordResetUse) -> Hashing:
    state = request.app.state
    work = partial(_require_living_and_hash, state.database, data, state.settings.bcrypt_rounds)
    return Hashing(data.token, work)


@public_router.put("/password-reset", status_code=204, responses=problems(InvalidCredentials))
def use_password_reset(
    data: PasswordResetUse, password_hash: Annotated[str, Prepared(_hash_for_living_token)], session: WriteSession
) -> None:
    """Set a new password with the token from the mail; every session of the account ends."""
    user = session.get(User, PasswordReset.redeem(session, data.token), with_for_update=True)
    if user is None or not user.is_active:
        raise InvalidCredentials
    act_as(session, user.id)
    user.change_password(session, password_hash)
    FailedSignIn.clear(session, user.account)


def _require_living_and_hash(database: Database, data: PasswordResetUse, rounds: int) -> str:
    with database.read() as session:
        if not PasswordReset.is_living(session, data.token):
            raise InvalidCredentials
    return hash_password(data.new_password, rounds)


# Pages


class SignIn(RequestBody):
    """Who somebody is."""

    email: Email
    password: GivenPassword


@pages.get("/sign-in")
def show_sign_in(
    request: Request, session: ReadSession, back: Annotated[str, Query(alias="next")] = "/", user: Visitor = None
) -> Template | See:
    """Ask who somebody is; whoever is signed in goes on, and the first one ever makes an account."""
    if user is not None:
        return See(local_path(back))
    settings: Settings = request.app.state.settings
    is_first = not User.anybody(session)
    if is_first and settings.registration_open:
        return See(f"/sign-up?{urlencode({'next': local_path(back)})}")
    wrong = {"INVALID_CREDENTIALS": "The e-mail address or the password is wrong."}
    known = {"email": "username", "password": "current-password"}
    form = Form(SignIn, hidden={"next": local_path(back)}, problems=wrong, autocomplete=known)
    return Template("auth/sign_in.html", form=form, is_open=settings.registration_open, is_first=is_first)


def _checked_sign_in(request: Request, sent: Sent) -> Hashing:
    data, state = sent.read(SignIn), request.app.state
    return Hashing(data.email, partial(check_credentials, state.database, state.settings, data.email, data.password))


@pages.post("/sign-in")
def sign_in(
    request: Request, sent: SentForm, proof: Annotated[Proof, Prepared(_checked_sign_in)], session: WriteSession
) -> See:
    """Sign in: the browser gets its cookie."""
    return _signed_in(request, session, accept(session, proof, request.app.state.settings), sent)


@pages.get("/sign-up")
def show_sign_up(
    request: Request, session: ReadSession, back: Annotated[str, Query(alias="next")] = "/", user: Visitor = None
) -> Template | See:
    """Offer an account."""
    if user is not None:
        return See(local_path(back))
    if not request.app.state.settings.registration_open:
        raise RegistrationClosed
    named, rule = {"full_name": "Name"}, {"password": PASSWORD_RULE}
    form = Form(UserRegister, hidden={"next": local_path(back)}, labels=named, hints=rule)
    return Template("auth/sign_up.html", form=form, is_first=not User.anybody(session))


def _sign_up_hash(request: Request, sent: Sent) -> Hashing:
    return _registered_password_hash(request, sent.read(UserRegister))


@pages.post("/sign-up")
def sign_up(
    request: Request, sent: SentForm, password_hash: Annotated[str, Prepared(_sign_up_hash)], session: WriteSession
) -> See:
    """Make an account, and sign in."""
    return _signed_in(request, session, register(sent.read(UserRegister), password_hash, session), sent)


def _signed_in(request: Request, session: Session, user: User, sent: Sent) -> See:
    if before := visit_of(request).claims:  # this browser has another session then
        session.exec(delete(LoginSession).where(col(LoginSession.id) == before.sid))
    login_session, _ = _start_session(request, session, user)
    token = page_token(request, login_session)
    return See(local_path(sent.text("next"))).remember("session", token, session_seconds(request))


@pages.post("/sign-out", shown_on="/")
def sign_out(session: WriteSession, user: Visitor = None) -> See:
    """Sign out here; what the browser keeps of earlier pages goes, too."""
    if user is not None:
        end_current_session(user, session)
    see = See("/sign-in", "You are signed out.").remember("session", "", 0).remember("cart", "", 0)
    see.headers["Clear-Site-Data"] = '"cache"'
    return see


@pages.get("/password-reset")
def show_password_reset(request: Request) -> Template:
    """Ask to whom a mail should go."""
    has_mail = request.app.state.settings.smtp_url is not None
    return Template("auth/password_reset.html", form=Form(PasswordResetRequest), has_mail=has_mail)


@pages.post("/password-reset")
def send_reset(sent: SentForm, session: WriteSession) -> See:
    """Have a mail sent; what is said does not tell whether there is such an account."""
    request_password_reset(sent.read(PasswordResetRequest), session)
    return See("/sign-in", "If there is an account with this address, a mail is on its way to it.")


@pages.get("/password-reset/{token}")
def show_new_password(token: str, session: ReadSession) -> Template:
    """Ask for a new password, for as long as the link is good."""
    is_living = PasswordReset.is_living(session, token)
    form = Form(PasswordResetUse, only=["new_password"], hints={"new_password": PASSWORD_RULE})
    return Template("auth/new_password.html", status=200 if is_living else 400, form=is_living and form, alert="")


def _reset_hash(request: Request, sent: Sent, token: str) -> Hashing:
    return _hash_for_living_token(request, sent.read(PasswordResetUse, token=token))


@pages.post("/password-reset/{token}")
def set_new_password(
    token: str, sent: SentForm, password_hash: Annotated[str, Prepared(_reset_hash)], session: WriteSession
) -> See:
    """Set a new password with the link from the mail, or from an admin."""
    use_password_reset(sent.read(PasswordResetUse, token=token), password_hash, session)
    return See("/sign-in", "Your new password is set; sign in with it.")


# What the outbox does


def send_welcome(app: App, entry: dict[str, Any]) -> None:
    """Welcome somebody who has registered."""
    app.state.mailer.send("welcome", entry["email"], full_name=entry["full_name"])


def send_password_reset(app: App, entry: dict[str, Any]) -> None:
    """Mail a token to somebody who asked for it, if there is such an active account; it is made here, not before."""
    database: Database = app.state.database
    with ending(database.write()) as session:
        user = session.exec(select(User).where(User.email == entry["email"], User.is_active)).one_or_none()
        token = PasswordReset.issue(session, user.id) if user else None
    if user and token:
        site = app.settings.public_url
        link = f"{site}/password-reset/{token}" if site else ""
        try:
            app.state.mailer.send("reset", user.email, full_name=user.full_name, token=token, link=link)
        except BaseException:
            with ending(database.write()) as session:  # the next attempt makes another one
                PasswordReset.end(session, token)
            raise


OUTBOX = {"welcome": send_welcome, "password-reset": send_password_reset}

# The first admin


def ensure_admin(settings: Settings, database: Database) -> None:
    """Make the admin that the settings name, where there is no user yet.

    Raises:
        StartRefused: the password is too weak.
    """
    if settings.admin_email is None or settings.admin_password is None:
        return
    with database.read() as session:
        if User.anybody(session):
            return
    try:
        create_admin(database, settings, settings.admin_email, settings.admin_password.get_secret_value())
    except ValidationError as error:
        message = str(error.errors()[0]["msg"]).removeprefix("Value error, ")
        raise StartRefused(f"APP_ADMIN_PASSWORD is wrong: {message}.") from error
    except IntegrityError:
        pass  # another worker was first


def create_admin(database: Database, settings: Settings, email: str, password: str, full_name: str = "Admin") -> User:
    """Make an admin without anybody being signed in.

    Raises:
        ValidationError: the e-mail or the password is not acceptable.
        IntegrityError: the e-mail is taken.
    """
    data = UserCreate(email=email, full_name=full_name, password=password, role="admin")
    password_hash = hash_password(password, settings.bcrypt_rounds)
    with ending(database.write()) as session:
        return User.create(session, data, password_hash)
