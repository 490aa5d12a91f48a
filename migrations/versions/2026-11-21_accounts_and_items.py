"""Accounts and items."""

import sqlalchemy as sa
from alembic import op

revision = "stockroom_0001"
down_revision = None
branch_labels = None
depends_on = None

BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
TEXT = sa.String().with_variant(sa.String(collation="C"), "postgresql")
TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Make the tables of accounts and of the stock."""
    op.create_table(
        "user",
        sa.Column("id", BIG, nullable=False),
        sa.Column("email", TEXT, nullable=False),
        sa.Column("full_name", TEXT, nullable=False),
        sa.Column("full_name_key", sa.String(), nullable=False),
        sa.Column("password_hash", sa.String(), nullable=False),
        sa.Column("role", sa.String(), nullable=False),
        sa.Column("is_active", sa.Boolean(), nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("updated_at", TIME, nullable=False),
        sa.CheckConstraint("role IN ('member', 'admin')", name=op.f("ck_user_role")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_user")),
        sa.UniqueConstraint("email", name=op.f("uq_user_email")),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "login_session",
        sa.Column("id", BIG, nullable=False),
        sa.Column("user_id", BIG, nullable=False),
        sa.Column("family_hash", sa.String(), nullable=False),
        sa.Column("secret_hash", sa.String(), nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("last_used_at", TIME, nullable=False),
        sa.Column("expires_at", TIME, nullable=False),
        sa.Column("user_agent", sa.String(), nullable=False),
        sa.Column("ip", sa.String(), nullable=False),
        sa.ForeignKeyConstraint(["user_id"], ["user.id"], name=op.f("fk_login_session_user_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_login_session")),
        sa.UniqueConstraint("family_hash", name=op.f("uq_login_session_family_hash")),
        sqlite_autoincrement=True,
    )
    op.create_index(op.f("ix_login_session_user_id"), "login_session", ["user_id"])
    op.create_index(op.f("ix_login_session_expires_at"), "login_session", ["expires_at"])
    op.create_table(
        "failed_sign_in",
        sa.Column("account_hash", sa.String(), nullable=False),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.Column("window_ends_at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("account_hash", name=op.f("pk_failed_sign_in")),
    )
    op.create_index(op.f("ix_failed_sign_in_window_ends_at"), "failed_sign_in", ["window_ends_at"])
    op.create_table(
        "item",
        sa.Column("id", BIG, nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("name", TEXT, nullable=False),
        sa.Column("name_key", sa.String(), nullable=False),
        sa.Column("price_cents", BIG, nullable=False),
        sa.Column("quantity", BIG, nullable=False),
        sa.Column("reorder_level", BIG, nullable=False),
        sa.Column("tags", sa.String(), nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("updated_at", TIME, nullable=False),
        sa.CheckConstraint("price_cents > 0", name=op.f("ck_item_price_cents")),
        sa.CheckConstraint("quantity >= 0", name=op.f("ck_item_quantity")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_item")),
        sa.UniqueConstraint("name_key", name=op.f("uq_item_name_key")),
        sqlite_autoincrement=True,
    )
    op.create_index(op.f("ix_item_name"), "item", ["name"])


def downgrade() -> None:
    """Drop them again."""
    for table in ("item", "failed_sign_in", "login_session", "user"):
        op.drop_table(table)
