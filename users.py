"""The routes of accounts: one's own, and those that an admin manages."""

from functools import partial
from typing import Annotated

from fastapi import Depends, Query, Request
from sqlalchemy import bindparam
from sqlmodel import col, or_
from sqlmodel.sql.expression import SelectOfScalar
from starlette.concurrency import run_in_threadpool

from callers import AdminUser, Caller, CurrentSession, CurrentUser, admin_user, current_user
from kit.db import ReadSession, WriteSession
from kit.errors import problems
from kit.lists import (
    Cursoring,
    Endless,
    EndlessOf,
    Filters,
    Page,
    PageOf,
    Paging,
    SearchText,
    order_by,
    plain,
    remembered,
    sortable,
)
from kit.problems import EmailTaken, InvalidCredentials, LastAdmin, NotFound, TooManyAttempts, UserHasOrders
from kit.routing import Router
from models import (
    Id,
    PasswordChange,
    Post,
    PostPublic,
    Principal,
    ProfileUpdate,
    Role,
    User,
    UserCreate,
    UserPublic,
    UserUpdate,
    folded,
)
from passwords import Proof, hash_password, hashing, prove, settle

router = Router(prefix="/api/v1/users", tags=["users"])


class UserFilters(Filters):
    """Which accounts to list, and in which order."""

    q: SearchText = ""
    role: Role | None = None
    is_active: bool | None = None
    sort: Annotated[str, sortable("email", "full_name", "created_at")] = "email"

    @remembered
    def users(self) -> SelectOfScalar[User]:
        """The accounts that pass, in their order."""
        users = plain(User)
        if self.q:
            in_email = col(User.email).contains(self.q.lower(), autoescape=True)
            users = users.where(or_(in_email, col(User.full_name_key).contains(folded(self.q), autoescape=True)))
        if self.role is not None:
            users = users.where(User.role == self.role)
        if self.is_active is not None:
            users = users.where(col(User.is_active) == self.is_active)
        return users.order_by(*order_by(User, self.sort))


POSTS = Post.shown().where(col(Post.creator_id) == bindparam("creator_id"))


async def created_password_hash(
    request: Request, caller: Annotated[Caller, Depends(admin_user)], data: UserCreate
) -> str:
    """The hash of the password of a new account; does no I/O itself."""
    await run_in_threadpool(caller.resolve_alone, request)  # nobody but an admin may make this work
    return await hashing(request, partial(hash_password, data.password, request.app.state.settings.bcrypt_rounds))


async def changed_password(
    request: Request, caller: Annotated[Caller, Depends(current_user)], data: PasswordChange
) -> tuple[Proof, str]:
    """What the current password proves, and the hash of the new one; does no I/O itself."""
    user = await run_in_threadpool(caller.resolve_alone, request)
    proof = await hashing(request, partial(prove, request.app.state.database, user.email, data.current_password))
    if proof.user_id is None:
        return proof, ""
    rounds = request.app.state.settings.bcrypt_rounds
    return proof, await hashing(request, partial(hash_password, data.new_password, rounds))


@router.get("/me", response_model=UserPublic)
def get_me(user: CurrentUser, session: ReadSession) -> Principal:
    """Show the caller's own account."""
    return user


@router.patch("/me", response_model=UserPublic, responses=problems(EmailTaken))
def update_me(data: ProfileUpdate, user: CurrentUser, session: WriteSession) -> User:
    """Change the caller's own name or e-mail."""
    return session.get_one(User, user.id, with_for_update=True).change(session, data.changes())


@router.put("/me/password", status_code=204, responses=problems(InvalidCredentials, TooManyAttempts))
def change_my_password(
    request: Request,
    user: CurrentUser,
    current: CurrentSession,
    checked: Annotated[tuple[Proof, str], Depends(changed_password)],
    session: WriteSession,
) -> None:
    """Set a new password; every other session of the caller ends. A wrong current one counts as a failed sign-in."""
    proof, password_hash = checked
    settle(session, proof, request.app.state.settings).change_password(session, password_hash, keep_session=current)


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
    password_hash: Annotated[str, Depends(created_password_hash)],
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


@router.get("/{user_id}/posts", response_model=EndlessOf[PostPublic])
def list_user_posts(user_id: Id, cursor: Cursoring, user: CurrentUser, session: ReadSession) -> Endless[Post]:
    """List what somebody posted, the newest first."""
    author = session.get_one(User, user_id)
    return cursor.of(session, Post, POSTS, creator_id=author.id)


@router.patch("/{user_id}", response_model=UserPublic, responses=problems(EmailTaken, LastAdmin))
def update_user(user_id: Id, data: UserUpdate, admin: AdminUser, session: WriteSession) -> User:
    """Change an account. A new role or a deactivation takes effect on that person's next request."""
    return session.get_one(User, user_id, with_for_update=True).change(session, data.changes())


@router.delete("/{user_id}", status_code=204, responses=problems(LastAdmin, UserHasOrders))
def delete_user(user_id: Id, admin: AdminUser, session: WriteSession) -> None:
    """Delete an account that never ordered, with its posts, comments, notifications and sessions."""
    session.get_one(User, user_id, with_for_update=True).remove(session)
