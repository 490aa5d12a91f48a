"""Posts and comments."""

import sqlalchemy as sa
from alembic import op

revision = "posts"
down_revision = "accounts"
branch_labels = None
depends_on = None

BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Make the tables of posts and comments."""
    op.create_table(
        "post",
        sa.Column("id", BIG, nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("creator_id", BIG, nullable=False),
        sa.Column("title", sa.String(), nullable=False),
        sa.Column("content", sa.String(), nullable=False),
        sa.Column("search_key", sa.String(), nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("updated_at", TIME, nullable=False),
        sa.ForeignKeyConstraint(["creator_id"], ["user.id"], name=op.f("fk_post_creator_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_post")),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_post_creator_id", "post", ["creator_id", "id"])
    op.create_table(
        "comment",
        sa.Column("id", BIG, nullable=False),
        sa.Column("creator_id", BIG, nullable=False),
        sa.Column("post_id", BIG, nullable=False),
        sa.Column("content", sa.String(), nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("updated_at", TIME, nullable=False),
        sa.ForeignKeyConstraint(["creator_id"], ["user.id"], name=op.f("fk_comment_creator_id"), ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["post_id"], ["post.id"], name=op.f("fk_comment_post_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_comment")),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_comment_post_id", "comment", ["post_id", "id"])
    op.create_index("ix_comment_creator_id", "comment", ["creator_id"])


def downgrade() -> None:
    """Drop them again."""
    for table in ("comment", "post"):
        op.drop_table(table)
