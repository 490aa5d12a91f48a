"""The routes of posts and their comments."""

from typing import Annotated

from fastapi import Query, Response
from sqlalchemy import bindparam
from sqlmodel import col, select
from sqlmodel.sql.expression import SelectOfScalar

from auth import CurrentUser
from kit.db import ReadSession, WriteSession
from kit.errors import problems
from kit.lists import CursorPage, CursorPageOf, CursorPaging, Filters, IfMatch, SearchText, cached_statement
from kit.models import Id, folded
from kit.problems import NotOwner
from kit.routing import Router
from models import Comment, CommentCreate, CommentPublic, CommentUpdate, Post, PostCreate, PostPublic, PostUpdate
from settings import API

router = Router(prefix=f"{API}/posts", tags=["posts"])


class PostFilters(Filters):
    """Which posts to list."""

    q: SearchText = ""

    @cached_statement
    def posts(self) -> SelectOfScalar[Post]:
        """The posts that pass."""
        if not self.q:
            return Post.shown()
        return Post.shown().where(col(Post.search_key).contains(folded(self.q), autoescape=True))


COMMENTS = select(Comment).where(col(Comment.post_id) == bindparam("post_id"))


def comments_of(post_id: int) -> SelectOfScalar[Comment]:
    """The comments of a post; one under another post's id is not found."""
    return select(Comment).where(Comment.post_id == post_id)


@router.get("", response_model=CursorPageOf[PostPublic])
def list_posts(
    cursor: CursorPaging, filters: Annotated[PostFilters, Query()], user: CurrentUser, session: ReadSession
) -> CursorPage[Post]:
    """List posts, the newest first; `q` is a part of the title or the content, without case."""
    return cursor.of(session, Post, filters.posts())


@router.post("", status_code=201, response_model=PostPublic)
def create_post(response: Response, data: PostCreate, user: CurrentUser, session: WriteSession) -> Post:
    """Post a note to everybody."""
    post = session.insert(Post.model_validate(data, update={"creator_id": user.id}))
    response.headers["Location"] = post.link
    return post


@router.get("/{post_id}", response_model=PostPublic)
def get_post(post_id: Id, user: CurrentUser, session: ReadSession) -> Post:
    """Show one post."""
    return session.get_one(Post, post_id, among=Post.shown())


@router.patch("/{post_id}", response_model=PostPublic, responses=problems(NotOwner))
def update_post(
    post_id: Id, data: PostUpdate, user: CurrentUser, session: WriteSession, if_match: IfMatch = None
) -> Post:
    """Change one's own post."""
    post = session.get_one(Post, post_id, among=Post.shown()).require_owner(user).require_version(if_match)
    return session.change(post, data.changes())


@router.delete("/{post_id}", status_code=204, responses=problems(NotOwner))
def delete_post(post_id: Id, user: CurrentUser, session: WriteSession, if_match: IfMatch = None) -> None:
    """Delete one's own post, or any as an admin, with its comments."""
    post = session.get_one(Post, post_id, among=Post.shown())
    session.delete(post.require_owner_or_admin(user).require_version(if_match))


@router.get("/{post_id}/comments", response_model=CursorPageOf[CommentPublic])
def list_comments(post_id: Id, cursor: CursorPaging, user: CurrentUser, session: ReadSession) -> CursorPage[Comment]:
    """List what people said about a post, the oldest first."""
    post = session.get_one(Post, post_id, among=Post.shown())
    return cursor.of(session, Comment, COMMENTS, oldest_first=True, post_id=post.id)


@router.post("/{post_id}/comments", status_code=201, response_model=CommentPublic)
def create_comment(
    response: Response, post_id: Id, data: CommentCreate, user: CurrentUser, session: WriteSession
) -> Comment:
    """Say something about a post; its creator is told."""
    post = session.get_one(Post, post_id, among=Post.shown())
    comment = post.comment(session, user, data)
    response.headers["Location"] = f"{post.link}/comments/{comment.id}"
    return comment


@router.get("/{post_id}/comments/{comment_id}", response_model=CommentPublic)
def get_comment(post_id: Id, comment_id: Id, user: CurrentUser, session: ReadSession) -> Comment:
    """Show one comment."""
    return session.get_one(Comment, comment_id, among=comments_of(post_id))


@router.patch("/{post_id}/comments/{comment_id}", response_model=CommentPublic, responses=problems(NotOwner))
def update_comment(
    post_id: Id, comment_id: Id, data: CommentUpdate, user: CurrentUser, session: WriteSession
) -> Comment:
    """Change one's own comment."""
    comment = session.get_one(Comment, comment_id, among=comments_of(post_id)).require_owner(user)
    return session.change(comment, data.changes())


@router.delete("/{post_id}/comments/{comment_id}", status_code=204, responses=problems(NotOwner))
def delete_comment(post_id: Id, comment_id: Id, user: CurrentUser, session: WriteSession) -> None:
    """Delete one's own comment, or any as an admin."""
    session.delete(session.get_one(Comment, comment_id, among=comments_of(post_id)).require_owner_or_admin(user))
