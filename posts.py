"""The routes of posts and their comments."""

from typing import Annotated

from fastapi import Query, Response
from sqlalchemy import bindparam
from sqlmodel import Session, col, select
from sqlmodel.sql.expression import SelectOfScalar

from callers import CurrentUser
from kit.db import ReadSession, WriteSession
from kit.errors import problems
from kit.lists import Cursoring, Endless, EndlessOf, Filters, IfMatch, SearchText, remembered
from kit.problems import NotOwner
from kit.routing import Router
from models import (
    Comment,
    CommentCreate,
    CommentPublic,
    CommentUpdate,
    Id,
    Post,
    PostCreate,
    PostPublic,
    PostUpdate,
    folded,
)

router = Router(prefix="/api/v1/posts", tags=["posts"])


class PostFilters(Filters):
    """Which posts to list."""

    q: SearchText = ""

    @remembered
    def posts(self) -> SelectOfScalar[Post]:
        """The posts that pass."""
        if not self.q:
            return Post.shown()
        return Post.shown().where(col(Post.search_key).contains(folded(self.q), autoescape=True))


COMMENTS = select(Comment).where(col(Comment.post_id) == bindparam("post_id"))


def find_post(session: Session, post_id: int) -> Post:
    """The post, which nobody else can change until this transaction ends."""
    return session.exec(Post.shown().where(Post.id == post_id).with_for_update(of=Post)).one()


def find_comment(session: Session, post_id: int, comment_id: int) -> Comment:
    """The comment of this post."""
    return session.exec(select(Comment).where(Comment.id == comment_id, Comment.post_id == post_id)).one()


@router.get("", response_model=EndlessOf[PostPublic])
def list_posts(
    cursor: Cursoring, filters: Annotated[PostFilters, Query()], user: CurrentUser, session: ReadSession
) -> Endless[Post]:
    """List posts, the newest first; `q` is a part of the title or the content, without case."""
    return cursor.of(session, Post, filters.posts())


@router.post("", status_code=201, response_model=PostPublic)
def create_post(response: Response, data: PostCreate, user: CurrentUser, session: WriteSession) -> Post:
    """Post a note to everybody."""
    post = Post.model_validate(data, update={"creator_id": user.id})
    session.add(post)
    session.flush()
    response.headers["Location"] = post.link
    return post


@router.get("/{post_id}", response_model=PostPublic)
def get_post(post_id: Id, user: CurrentUser, session: ReadSession) -> Post:
    """Show one post."""
    return session.exec(Post.shown().where(Post.id == post_id)).one()


@router.patch("/{post_id}", response_model=PostPublic, responses=problems(NotOwner))
def update_post(
    post_id: Id, data: PostUpdate, user: CurrentUser, session: WriteSession, if_match: IfMatch = None
) -> Post:
    """Change one's own post."""
    post = find_post(session, post_id).require_creator(user).require_version(if_match)
    post.sqlmodel_update(data.changes())
    session.flush()
    return post


@router.delete("/{post_id}", status_code=204, responses=problems(NotOwner))
def delete_post(post_id: Id, user: CurrentUser, session: WriteSession, if_match: IfMatch = None) -> None:
    """Delete one's own post, or any as an admin, with its comments."""
    session.delete(find_post(session, post_id).require_creator_or_admin(user).require_version(if_match))


@router.get("/{post_id}/comments", response_model=EndlessOf[CommentPublic])
def list_comments(post_id: Id, cursor: Cursoring, user: CurrentUser, session: ReadSession) -> Endless[Comment]:
    """List what people said about a post, the oldest first."""
    post = session.exec(select(Post.id).where(Post.id == post_id)).one()
    return cursor.of(session, Comment, COMMENTS, oldest_first=True, post_id=post)


@router.post("/{post_id}/comments", status_code=201, response_model=CommentPublic)
def create_comment(
    response: Response, post_id: Id, data: CommentCreate, user: CurrentUser, session: WriteSession
) -> Comment:
    """Say something about a post; its creator is told."""
    post = find_post(session, post_id)
    comment = post.comment(session, user, data)
    response.headers["Location"] = f"{post.link}/comments/{comment.id}"
    return comment


@router.get("/{post_id}/comments/{comment_id}", response_model=CommentPublic)
def get_comment(post_id: Id, comment_id: Id, user: CurrentUser, session: ReadSession) -> Comment:
    """Show one comment."""
    return find_comment(session, post_id, comment_id)


@router.patch("/{post_id}/comments/{comment_id}", response_model=CommentPublic, responses=problems(NotOwner))
def update_comment(
    post_id: Id, comment_id: Id, data: CommentUpdate, user: CurrentUser, session: WriteSession
) -> Comment:
    """Change one's own comment."""
    comment = find_comment(session, post_id, comment_id).require_creator(user)
    comment.sqlmodel_update(data.changes())
    session.flush()
    return comment


@router.delete("/{post_id}/comments/{comment_id}", status_code=204, responses=problems(NotOwner))
def delete_comment(post_id: Id, comment_id: Id, user: CurrentUser, session: WriteSession) -> None:
    """Delete one's own comment, or any as an admin."""
    session.delete(find_comment(session, post_id, comment_id).require_creator_or_admin(user))
