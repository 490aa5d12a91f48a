"""Notifications."""

import sqlalchemy as sa
from alembic import op

revision = "notifications"
down_revision = "posts"
branch_labels = None
depends_on = None

BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Make the table of notifications."""
    op.create_table(
        "notification",
        sa.Column("id", BIG, nullable=False),
        sa.Column("user_id", BIG, nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("message", sa.String(), nullable=False),
        sa.Column("link", sa.String(), nullable=False),
        sa.Column("read_at", TIME, nullable=True),
        sa.Column("created_at", TIME, nullable=False),
        sa.ForeignKeyConstraint(["user_id"], ["user.id"], name=op.f("fk_notification_user_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_notification")),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_notification_user_id", "notification", ["user_id", "id"])
    op.create_index("ix_notification_user_id_read_at", "notification", ["user_id", "read_at", "id"])


def downgrade() -> None:
    """Drop it again."""
    op.drop_table("notification")
