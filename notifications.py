"""Notifications: what somebody should know, and that they have read it."""

from typing import Annotated

from fastapi import Query
from pydantic import BaseModel
from sqlalchemy import bindparam, update
from sqlmodel import col, select
from sqlmodel.sql.expression import SelectOfScalar

from auth import CurrentUser
from kit.db import ReadSession, WriteSession
from kit.lists import CursorPage, CursorPageOf, CursorPaging, Filters, cached_statement, rows_of
from kit.models import Id, now
from kit.pages import Menu, PageRouter, See, Template
from kit.routing import Router
from models import AllNotificationsUpdate, Notification, NotificationPublic, NotificationUpdate
from settings import API

router = Router(prefix=f"{API}/notifications", tags=["notifications"])
pages = PageRouter(Menu("Notifications", "/notifications", "bell", badge="unread"))


class NotificationFilters(Filters):
    """Which notifications to list."""

    unread: bool = False

    @cached_statement
    def notifications(self) -> SelectOfScalar[Notification]:
        """The notifications of `user_id` that pass."""
        notifications = rows_of(Notification).where(col(Notification.user_id) == bindparam("user_id"))
        return notifications.where(col(Notification.read_at).is_(None)) if self.unread else notifications


class UpdatedCount(BaseModel):
    """How many rows were changed."""

    updated: int


@router.get("", response_model=CursorPageOf[NotificationPublic])
def list_notifications(
    cursor: CursorPaging, filters: Annotated[NotificationFilters, Query()], user: CurrentUser, session: ReadSession
) -> CursorPage[Notification]:
    """List what the caller should know, the newest first."""
    return cursor.of(session, Notification, filters.notifications(), user_id=user.id)


@router.patch("/{notification_id}", response_model=NotificationPublic)
def update_notification(
    notification_id: Id, data: NotificationUpdate, user: CurrentUser, session: WriteSession
) -> Notification:
    """Mark one notification as read, or as unread again."""
    mine = select(Notification).where(Notification.user_id == user.id)
    return session.get_one(Notification, notification_id, among=mine).mark(read=data.read)


@router.patch("")
def update_all_notifications(data: AllNotificationsUpdate, user: CurrentUser, session: WriteSession) -> UpdatedCount:
    """Mark all of the caller's notifications as read."""
    unread = update(Notification).where(col(Notification.user_id) == user.id, col(Notification.read_at).is_(None))
    return UpdatedCount(updated=session.exec(unread.values(read_at=now())).rowcount)


@router.delete("/{notification_id}", status_code=204)
def delete_notification(notification_id: Id, user: CurrentUser, session: WriteSession) -> None:
    """Delete one notification; those that were read are deleted by themselves a year later."""
    mine = select(Notification).where(Notification.user_id == user.id)
    session.delete(session.get_one(Notification, notification_id, among=mine))


# Pages


@pages.get("/notifications")
def show_notifications(
    cursor: CursorPaging, filters: Annotated[NotificationFilters, Query()], user: CurrentUser, session: ReadSession
) -> Template:
    """List what somebody should know, the newest first."""
    found = list_notifications(cursor, filters, user, session)
    return Template("notifications/list.html", notifications=found, cursor=cursor, filters=filters)


@pages.post("/notifications")
def read_notifications(user: CurrentUser, session: WriteSession) -> See:
    """Mark all of them as read."""
    count = update_all_notifications(AllNotificationsUpdate(read=True), user, session).updated
    done = f"{count:,} {'notification was' if count == 1 else 'notifications were'} marked as read."
    return See("/notifications", done if count else "You have read everything.")


@pages.post("/notifications/{notification_id}")
def open_notification(notification_id: Id, user: CurrentUser, session: WriteSession) -> See:
    """Mark one as read, and lead to what it tells of."""
    notification = update_notification(notification_id, NotificationUpdate(read=True), user, session)
    return See(notification.link.removeprefix(API))


@pages.post("/notifications/{notification_id}/delete")
def remove_notification(notification_id: Id, user: CurrentUser, session: WriteSession) -> See:
    """Delete one notification."""
    delete_notification(notification_id, user, session)
    return See("/notifications", "The notification was deleted.")
