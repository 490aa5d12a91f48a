"""The routes of posts and their comments."""

from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import Query, Response
from sqlalchemy import Integer, bindparam, desc
from sqlalchemy import select as select_columns
from sqlmodel import Session, col, select
from sqlmodel.sql.expression import SelectOfScalar

from audit import history_of
from auth import CurrentUser
from kit.db import ReadSession, WriteSession
from kit.errors import problems
from kit.forms import Form, SentForm
from kit.lists import (
    CursorPage,
    CursorPageOf,
    CursorPaging,
    CursorRequest,
    Filters,
    IfMatch,
    SearchText,
    cached_statement,
    contains,
    cursor_after,
)
from kit.models import Id, folded
from kit.pages import Menu, PageRouter, See, Template
from kit.problems import NotOwner
from kit.routing import Router
from models import Comment, CommentCreate, CommentPublic, CommentUpdate, Post, PostCreate, PostPublic, PostUpdate
from settings import API

router = Router(prefix=f"{API}/posts", tags=["posts"])
pages = PageRouter(Menu("Posts", "/posts", "message"))


class PostFilters(Filters):
    """Which posts to list."""

    q: SearchText = ""

    @cached_statement
    def posts(self) -> SelectOfScalar[Post]:
        """The posts that pass."""
        if not self.q:
            return Post.shown()
        return Post.shown().where(contains(col(Post.search_key), folded(self.q)))


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


# Pages

COMMENT_LABELS = {"content": "Your comment"}


@pages.get("/posts")
def show_posts(
    cursor: CursorPaging, filters: Annotated[PostFilters, Query()], user: CurrentUser, session: ReadSession
) -> Template:
    """List posts, the newest first."""
    return Template("posts/list.html", posts=list_posts(cursor, filters, user, session), cursor=cursor, filters=filters)


@pages.get("/posts/new")
def show_new_post(user: CurrentUser) -> Template:
    """Ask what everybody should read."""
    return Template("posts/new.html", form=Form(PostCreate))


@pages.post("/posts/new")
def add_post(response: Response, sent: SentForm, user: CurrentUser, session: WriteSession) -> See:
    """Post a note to everybody."""
    post = create_post(response, sent.read(PostCreate), user, session)
    return See(f"/posts/{post.id}", "Your post is there for everybody to read.")


@pages.get("/posts/{post_id}")
def show_post(post_id: Id, cursor: CursorPaging, user: CurrentUser, session: ReadSession) -> Template:
    """Show a post and what people say about it; to admins also who changed it."""
    post = get_post(post_id, user, session)
    comments = cursor.of(session, Comment, COMMENTS, oldest_first=True, post_id=post_id)
    history = history_of(session, Post, post_id) if user.is_admin else []
    shown: dict[str, Any] = {"cursor": cursor, "earlier": _earlier(session, post_id, cursor, comments.items)}
    shown |= {"form": Form(CommentCreate, labels=COMMENT_LABELS), "history": history}
    return Template("posts/post.html", post=post, comments=comments, **shown)


@pages.get("/posts/{post_id}/edit")
def show_post_to_edit(post_id: Id, user: CurrentUser, session: ReadSession) -> Template:
    """Show one's own post in a form."""
    post = get_post(post_id, user, session).require_owner(user)
    return Template("posts/edit.html", post=post, form=Form(PostUpdate, post))


@pages.post("/posts/{post_id}/edit")
def save_post(post_id: Id, sent: SentForm, user: CurrentUser, session: WriteSession) -> See:
    """Change one's own post, as far as the form says something new."""
    post = session.get_one(Post, post_id, among=Post.shown())
    update_post(post_id, sent.changes(PostUpdate, post), user, session)
    return See(f"/posts/{post_id}", "Your post was saved.")


@pages.post("/posts/{post_id}/delete")
def remove_post(post_id: Id, user: CurrentUser, session: WriteSession) -> See:
    """Delete one's own post, or any as an admin, with its comments."""
    delete_post(post_id, user, session)
    return See("/posts", "The post was deleted.")


@pages.get("/posts/{post_id}/comments")
def show_comments(post_id: Id, user: CurrentUser) -> See:
    """Lead to the comments of a post, which stand on its page."""
    return See(f"/posts/{post_id}#comments")


@pages.post("/posts/{post_id}/comments", shown_on="/posts/{post_id}")
def add_comment(response: Response, post_id: Id, sent: SentForm, user: CurrentUser, session: WriteSession) -> See:
    """Say something about a post."""
    comment = create_comment(response, post_id, sent.read(CommentCreate), user, session)
    return See(_place_of(session, comment), "Your comment was added.")


@pages.get("/posts/{post_id}/comments/{comment_id}")
def show_comment(post_id: Id, comment_id: Id, user: CurrentUser, session: ReadSession) -> See:
    """Lead to a comment on the page of its post, wherever in the list it is."""
    return See(_place_of(session, get_comment(post_id, comment_id, user, session)))


@pages.get("/posts/{post_id}/comments/{comment_id}/edit")
def show_comment_to_edit(post_id: Id, comment_id: Id, user: CurrentUser, session: ReadSession) -> Template:
    """Show one's own comment in a form."""
    comment = get_comment(post_id, comment_id, user, session).require_owner(user)
    return Template(
        "posts/edit_comment.html", comment=comment, form=Form(CommentUpdate, comment, labels=COMMENT_LABELS)
    )


@pages.post("/posts/{post_id}/comments/{comment_id}/edit")
def save_comment(post_id: Id, comment_id: Id, sent: SentForm, user: CurrentUser, session: WriteSession) -> See:
    """Change one's own comment, as far as the form says something new."""
    comment = session.get_one(Comment, comment_id, among=comments_of(post_id))
    update_comment(post_id, comment_id, sent.changes(CommentUpdate, comment), user, session)
    return See(_place_of(session, comment), "Your comment was saved.")


@pages.post("/posts/{post_id}/comments/{comment_id}/delete")
def remove_comment(post_id: Id, comment_id: Id, user: CurrentUser, session: WriteSession) -> See:
    """Delete one's own comment, or any as an admin."""
    delete_comment(post_id, comment_id, user, session)
    part = _part_of(session, post_id, comment_id, before=COMMENTS_SHOWN - 1)
    return See(f"{part}#comments", "The comment was deleted.")


COMMENTS_SHOWN = CursorRequest().limit
EARLIER = (
    select_columns(col(Comment.id))
    .where(col(Comment.post_id) == bindparam("post_id"), col(Comment.id) < bindparam("comment_id"))
    .order_by(desc(col(Comment.id)))
    .limit(bindparam("limit", type_=Integer))
)


def _earlier(session: Session, post_id: int, cursor: CursorRequest, comments: Sequence[Comment]) -> str:
    """The page with the comments before these; empty where these are the first, or none. At most one statement."""
    return _part_of(session, post_id, comments[0].id, before=cursor.limit) if cursor.cursor and comments else ""


def _place_of(session: Session, comment: Comment) -> str:
    """Where a comment stands: below those before it that fit on the page; one statement."""
    return f"{_part_of(session, comment.post_id, comment.id, before=COMMENTS_SHOWN - 1)}#comment-{comment.id}"


def _part_of(session: Session, post_id: int, comment_id: int, *, before: int) -> str:
    """The page of a post whose comments begin so many before this one, or as many as there are."""
    around = {"post_id": post_id, "comment_id": comment_id, "limit": before + 1}
    ids = session.connection().execute(EARLIER, around).scalars().all()
    return f"/posts/{post_id}?cursor={cursor_after(Comment, ids[-1])}" if len(ids) > before else f"/posts/{post_id}"
