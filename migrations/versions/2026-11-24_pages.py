"""What pages need: login sessions that a cookie renews, and files between their preview and their import."""

import sqlalchemy as sa
from alembic import op

revision = "pages"
down_revision = "orders"
branch_labels = None
depends_on = None

BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Count the renewals of a session, and make the table of uploads."""
    op.add_column("login_session", sa.Column("renewals", sa.Integer(), nullable=False, server_default="0"))
    op.create_table(
        "upload",
        sa.Column("user_id", BIG, nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("content", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.ForeignKeyConstraint(["user_id"], ["user.id"], name=op.f("fk_upload_user_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("user_id", name=op.f("pk_upload")),
    )
    op.create_index(op.f("ix_upload_created_at"), "upload", ["created_at"])


def downgrade() -> None:
    """Take both away."""
    op.drop_table("upload")
    op.drop_column("login_session", "renewals")
