"""The routes of accounts: one's own, and those that an admin manages."""

from functools import partial
from typing import Annotated

from fastapi import Query, Request
from sqlalchemy import bindparam
from sqlmodel import col, or_
from sqlmodel.sql.expression import SelectOfScalar

from auth import AdminUser, CurrentUser, Proof, accept, check_credentials
from kit.audit import refusals
from kit.auth import Hashing, hash_password, nobodys_hash
from kit.db import ReadSession, WriteSession
from kit.errors import problems
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
from kit.problems import InvalidCredentials, NotFound, TooManyAttempts
from kit.routing import Prepared, Router
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
