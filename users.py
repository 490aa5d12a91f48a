"""The routes of accounts: one's own, and those that an admin manages."""

from functools import partial
from typing import Annotated

from fastapi import Query, Request
from sqlalchemy import bindparam
from sqlmodel import Session, col, or_
from sqlmodel.sql.expression import SelectOfScalar

from audit import history_of
from auth import AdminUser, CurrentUser, Proof, accept, check_credentials, end_session, list_sessions
from kit.audit import refusals
from kit.auth import PASSWORD_RULE, Hashing, hash_password, nobodys_hash
from kit.db import ReadSession, WriteSession
from kit.errors import problems
from kit.forms import Form, Sent, SentForm
from kit.lists import (
    CursorPage,
    CursorPageOf,
    CursorPaging,
    Filters,
    Page,
    PageOf,
    Paging,
    SearchText,
    cached_statement,
    contains,
    order_by,
    rows_of,
    sortable,
)
from kit.models import Id, folded
from kit.pages import Menu, PageRouter, See, Template
from kit.problems import InvalidCredentials, NotFound, TooManyAttempts
from kit.routing import Prepared, Router
from kit.sessions import LoginSession, device
from kit.visits import back_to
from models import (
    EmailTaken,
    LastAdmin,
    PasswordChange,
    PasswordResetToken,
    Post,
    PostPublic,
    Principal,
    ProfileUpdate,
    Role,
    User,
    UserCreate,
    UserPublic,
    UserUpdate,
)
from settings import API, Settings

router = Router(prefix=f"{API}/users", tags=["users"])
pages = PageRouter(Menu("People", "/people", "users", for_admins=True, rows="/users/"))


class UserFilters(Filters):
    """Which accounts to list, and in which order."""

    q: SearchText = ""
    role: Role | None = None
    is_active: bool | None = None
    sort: Annotated[str, sortable("email", "full_name", "created_at")] = "email"

    @cached_statement
    def users(self) -> SelectOfScalar[User]:
        """The accounts that pass, in their order."""
        users = rows_of(User)
        if self.q:
            in_email = contains(col(User.email), self.q.lower())
            users = users.where(or_(in_email, contains(col(User.full_name_key), folded(self.q))))
        if self.role is not None:
            users = users.where(User.role == self.role)
        if self.is_active is not None:
            users = users.where(col(User.is_active) == self.is_active)
        return users.order_by(*order_by(User, self.sort))


POSTS = Post.shown().where(col(Post.creator_id) == bindparam("creator_id"))


def _new_password_hash(request: Request, data: UserCreate) -> Hashing:
    settings: Settings = request.app.state.settings
    if not data.password:  # nobody can sign in until it is set with a token
        return Hashing(data.email, partial(nobodys_hash, settings.bcrypt_rounds))
    return Hashing(data.email, partial(hash_password, data.password, settings.bcrypt_rounds))


def _changed_password(request: Request, user: Principal, data: PasswordChange) -> Hashing:
    """What the current password proves, and the hash of the new one."""
    state = request.app.state

    def check_and_hash() -> tuple[Proof, str]:
        proof = check_credentials(state.database, state.settings, user.email, data.current_password)
        wrong = proof.user_id is None
        return proof, "" if wrong else hash_password(data.new_password, state.settings.bcrypt_rounds)

    return Hashing(user.email, check_and_hash)


@router.get("/me", response_model=UserPublic)
def get_me(user: CurrentUser, session: ReadSession) -> Principal:
    """Show the caller's own account."""
    return user


@router.patch("/me", response_model=UserPublic, responses=problems(EmailTaken))
def update_me(data: ProfileUpdate, user: CurrentUser, session: WriteSession) -> User:
    """Change the caller's own name or e-mail."""
    return user.account(session).change(session, data.changes())


@router.put("/me/password", status_code=204, responses=problems(InvalidCredentials, TooManyAttempts))
def change_my_password(
    request: Request,
    data: PasswordChange,
    user: CurrentUser,
    checked: Annotated[tuple[Proof, str], Prepared(_changed_password)],
    session: WriteSession,
) -> None:
    """Set a new password; every other session of the caller ends. A wrong current one counts as a failed sign-in."""
    proof, password_hash = checked
    account = accept(session, proof, request.app.state.settings)
    account.change_password(session, password_hash, keep_session=user.session_id)


@router.get("", response_model=PageOf[UserPublic])
def list_users(
    page: Paging, filters: Annotated[UserFilters, Query()], admin: AdminUser, session: ReadSession
) -> Page[User]:
    """List accounts; `q` is a part of the e-mail or the name, without case."""
    return page.of(session, filters.users())


@router.post("", status_code=201, response_model=UserPublic, responses=problems(EmailTaken))
def create_user(
    data: UserCreate,
    admin: AdminUser,
    password_hash: Annotated[str, Prepared(_new_password_hash)],
    session: WriteSession,
) -> User:
    """Make an account for someone else."""
    return User.create(session, data, password_hash)


@router.get("/{user_id}", response_model=UserPublic)
def get_user(user_id: Id, user: CurrentUser, session: ReadSession) -> User:
    """Show one account: one's own, or any to an admin."""
    if user_id != user.id and not user.is_admin:
        raise NotFound("user", user_id)
    return session.get_one(User, user_id)


@router.get("/{user_id}/posts", response_model=CursorPageOf[PostPublic])
def list_user_posts(user_id: Id, cursor: CursorPaging, user: CurrentUser, session: ReadSession) -> CursorPage[Post]:
    """List what somebody posted, the newest first."""
    author = session.get_one(User, user_id)
    return cursor.of(session, Post, POSTS, creator_id=author.id)


@router.patch("/{user_id}", response_model=UserPublic, responses=problems(EmailTaken, LastAdmin))
def update_user(user_id: Id, data: UserUpdate, admin: AdminUser, session: WriteSession) -> User:
    """Change an account. A new role or a deactivation takes effect on that person's next request."""
    return User.find_with_admins(session, user_id).change(session, data.changes())


@router.post("/{user_id}/password-reset", status_code=201)
def issue_password_reset(user_id: Id, admin: AdminUser, session: WriteSession) -> PasswordResetToken:
    """Make a one-time token for somebody to set their password with, to be handed over; earlier ones end."""
    return session.get_one(User, user_id).issue_reset(session)


@router.delete("/{user_id}", status_code=204, responses=problems(LastAdmin, *refusals(User)))
def delete_user(user_id: Id, admin: AdminUser, session: WriteSession) -> None:
    """Delete an account that never ordered, with its posts, comments, notifications and sessions."""
    User.find_with_admins(session, user_id).remove(session)


# Pages

NAMED = {"full_name": "Name", "is_active": "Active"}
LINK_INSTEAD = "Leave it empty, and you get a link to hand over, with which they set their own."
WHEN_INACTIVE = "Without this they are signed out everywhere at once and cannot sign in; all that they did stays."
SIGNED_OUT_ELSEWHERE = "You are signed out everywhere but here."


@pages.get("/account")
def show_account(user: CurrentUser, session: ReadSession) -> Template:
    """Show one's own account, and where one is signed in."""
    profile = Form(ProfileUpdate, user, labels=NAMED)
    wrong = {"INVALID_CREDENTIALS": "The current password is not right."}
    password = Form(PasswordChange, hints={"new_password": PASSWORD_RULE}, problems=wrong)
    places = [(place, device(place.user_agent)) for place in list_sessions(user, session)]
    return Template("users/account.html", profile=profile, password=password, places=places)


@pages.post("/account")
def save_account(sent: SentForm, user: CurrentUser, session: WriteSession) -> See:
    """Change one's own name or e-mail."""
    account = user.account(session)
    account.change(session, sent.changes(ProfileUpdate, account).changes())
    return See("/account", "Your account was saved.")


def _sent_password(request: Request, user: Principal, sent: Sent) -> Hashing:
    return _changed_password(request, user, sent.read(PasswordChange))


@pages.post("/account/password", shown_on="/account")
def save_password(
    request: Request,
    sent: SentForm,
    user: CurrentUser,
    checked: Annotated[tuple[Proof, str], Prepared(_sent_password)],
    session: WriteSession,
) -> See:
    """Set a new password; this browser stays signed in."""
    change_my_password(request, sent.read(PasswordChange), user, checked, session)
    return See("/account", f"Your password was changed. {SIGNED_OUT_ELSEWHERE}")


@pages.post("/account/sessions", shown_on="/account")
def sign_out_elsewhere(user: CurrentUser, session: WriteSession) -> See:
    """Sign out everywhere but here."""
    LoginSession.end_all(session, user.id, but=user.session_id)
    return See("/account", SIGNED_OUT_ELSEWHERE)


@pages.post("/account/sessions/{session_id}", shown_on="/account")
def sign_out_there(session_id: Id, user: CurrentUser, session: WriteSession) -> See:
    """Sign out in one place."""
    end_session(session_id, user, session)
    return See("/account", "You are signed out there.")


@pages.get("/people")
def show_people(
    page: Paging, filters: Annotated[UserFilters, Query()], admin: AdminUser, session: ReadSession
) -> Template:
    """Show accounts."""
    people = list_users(page, filters, admin, session)
    kept = filters.model_dump(mode="json", exclude={"q"}, exclude_defaults=True)
    return Template("users/people.html", people=people, filters=filters, kept=kept)


@pages.get("/people/new")
def show_new_person(request: Request, admin: AdminUser) -> Template:
    """Ask whom to add."""
    hints = {"password": f"{PASSWORD_RULE} {LINK_INSTEAD}"}
    not_mine = {"email": "off", "full_name": "off"}
    hidden = {"back": back_to(request, "/people")}
    form = Form(UserCreate, labels=NAMED, hints=hints, hidden=hidden, autocomplete=not_mine)
    return Template("users/new.html", form=form)


def _sent_new_hash(request: Request, sent: Sent) -> Hashing:
    return _new_password_hash(request, sent.read(UserCreate))


@pages.post("/people/new")
def add_person(
    request: Request,
    sent: SentForm,
    admin: AdminUser,
    password_hash: Annotated[str, Prepared(_sent_new_hash)],
    session: WriteSession,
) -> Template | See:
    """Make an account for somebody else; without a password there is a link to hand over."""
    account = create_user(sent.read(UserCreate), admin, password_hash, session)
    if not sent.text("password"):
        return _link_to_hand_over(request, session, account)
    text = f"{account.full_name} was added, and can sign in with the password that you chose."
    return See(sent.path("back", "/people"), text, link=f"/users/{account.id}")


@pages.get("/users/{user_id}")
def show_person(request: Request, user_id: Id, user: CurrentUser, session: ReadSession) -> Template | See:
    """Show an account to an admin; whoever else looks at their own has a page for that."""
    account = get_user(user_id, user, session)
    if not user.is_admin:
        return See("/account")
    hidden, not_mine = {"back": back_to(request, "/people")}, {"email": "off", "full_name": "off"}
    hints = {"is_active": WHEN_INACTIVE}
    form = Form(UserUpdate, account, labels=NAMED, hints=hints, hidden=hidden, autocomplete=not_mine)
    return Template("users/person.html", account=account, form=form, history=history_of(session, User, user_id))


@pages.post("/users/{user_id}")
def save_person(user_id: Id, sent: SentForm, admin: AdminUser, session: WriteSession) -> See:
    """Change an account."""
    account = User.find_with_admins(session, user_id)
    account.change(session, sent.changes(UserUpdate, account).changes())
    if user_id == admin.id and not (account.is_admin and account.is_active):
        return See("/", "You are no admin any more.")
    return See(sent.path("back", "/people"), f"{account.full_name} was saved.", link=f"/users/{user_id}")


@pages.post("/users/{user_id}/password-reset", shown_on="/users/{user_id}")
def make_reset_link(request: Request, user_id: Id, admin: AdminUser, session: WriteSession) -> Template:
    """Make a link with which somebody sets a new password."""
    return _link_to_hand_over(request, session, session.get_one(User, user_id))


@pages.post("/users/{user_id}/delete", shown_on="/users/{user_id}")
def delete_person(user_id: Id, sent: SentForm, admin: AdminUser, session: WriteSession) -> See:
    """Delete an account."""
    account = User.find_with_admins(session, user_id)
    account.remove(session)
    return See(sent.path("back", "/people"), f"{account.full_name} was deleted.")


def _link_to_hand_over(request: Request, session: Session, account: User) -> Template:
    """The one page that shows a new link; it stands in no cookie, no address and no cache."""
    reset = account.issue_reset(session)
    settings: Settings = request.app.state.settings
    link = f"{settings.public_url or _address(request)}/password-reset/{reset.token}"
    headers = {"Cache-Control": "no-store"}
    return Template("users/link.html", status=201, headers=headers, account=account, link=link, reset=reset)


def _address(request: Request) -> str:
    """The address at which somebody sees the app; a browser knows the scheme, which ends at a proxy."""
    origin = request.headers.get("origin", "")
    return origin if origin.partition("://")[2] == request.headers["host"] else str(request.base_url).rstrip("/")
