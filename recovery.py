"""The routes for people who forgot their password."""

from functools import partial
from typing import Annotated

from anyio import to_thread
from fastapi import BackgroundTasks, Depends, Request, Response
from sqlmodel import select

from kit.db import Database, WriteSession, ending
from kit.errors import problems
from kit.mail import Mailer
from kit.problems import InvalidCredentials
from kit.routing import Router
from models import FailedSignIn, PasswordReset, PasswordResetRequest, PasswordResetUse, User
from passwords import hash_password, hashing

router = Router(public=True, prefix="/api/v1/auth", tags=["auth"])


async def proven_password_hash(request: Request, data: PasswordResetUse) -> str:
    """The hash of the new password, for a token that still lives; the work is done in a thread."""
    return await hashing(request, partial(_hash_for_living, request.app.state.database, data))


@router.post("/password-reset", status_code=202, response_class=Response)
def request_password_reset(request: Request, data: PasswordResetRequest, tasks: BackgroundTasks) -> Response:
    """Ask for a mail with a one-time token; whoever asks, the answer is the same and does not wait for anything."""
    tasks.add_task(_send_reset, request.app.state.database, request.app.state.mailer, data.email)
    return Response(status_code=202)


@router.put("/password-reset", status_code=204, responses=problems(InvalidCredentials))
def use_password_reset(
    data: PasswordResetUse, password_hash: Annotated[str, Depends(proven_password_hash)], session: WriteSession
) -> None:
    """Set a new password with the token from the mail; every session of the account ends."""
    user = PasswordReset.redeem(session, data.token)
    session.info["actor_id"] = user.id
    user.change_password(session, password_hash)
    FailedSignIn.clear(session, user.email)


def _hash_for_living(database: Database, data: PasswordResetUse) -> str:
    with database.read() as session:
        PasswordReset.require_living(session, data.token)
    return hash_password(data.new_password, database.settings.bcrypt_rounds)


async def _send_reset(database: Database, mailer: Mailer, email: str) -> None:
    # In the mailer's turns: many of these at once must not take the threads of those who wait for an answer.
    issued = await to_thread.run_sync(_issue, database, email, limiter=mailer.slots)
    if issued:
        full_name, token = issued
        await mailer.send("reset", email, full_name=full_name, token=token)


def _issue(database: Database, email: str) -> tuple[str, str] | None:
    with ending(database.write()) as session:
        user = session.exec(select(User).where(User.email == email, User.is_active)).one_or_none()
        token = PasswordReset.issue(session, user) if user else None
        return (user.full_name, token) if user and token else None
