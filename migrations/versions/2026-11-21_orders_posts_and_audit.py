"""Orders, posts, notifications and the audit."""

import sqlalchemy as sa
from alembic import op

revision = "stockroom_0002"
down_revision = "stockroom_0001"
branch_labels = None
depends_on = None

BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
TIME = sa.DateTime(timezone=True)
LOW_STOCK = sa.text("quantity <= reorder_level")


def upgrade() -> None:
    """Make the tables of orders, posts, comments, notifications and the audit."""
    op.create_index("ix_item_low_stock", "item", ["name"], sqlite_where=LOW_STOCK, postgresql_where=LOW_STOCK)
    op.create_table(
        "order",
        sa.Column("id", BIG, nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("user_id", BIG, nullable=False),
        sa.Column("status", sa.String(), nullable=False),
        sa.Column("total_cents", BIG, nullable=False),
        sa.Column("note", sa.String(), nullable=True),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("updated_at", TIME, nullable=False),
        sa.CheckConstraint("status IN ('pending', 'fulfilled', 'cancelled')", name=op.f("ck_order_status")),
        sa.ForeignKeyConstraint(["user_id"], ["user.id"], name=op.f("fk_order_user_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_order")),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_order_created_at", "order", [sa.text("created_at DESC"), "id"])
    op.create_index("ix_order_user_id_created_at", "order", ["user_id", sa.text("created_at DESC"), "id"])
    op.create_table(
        "order_line",
        sa.Column("order_id", BIG, nullable=False),
        sa.Column("item_id", BIG, nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("item_name", sa.String(), nullable=False),
        sa.Column("quantity", sa.Integer(), nullable=False),
        sa.Column("unit_price_cents", BIG, nullable=False),
        sa.ForeignKeyConstraint(["order_id"], ["order.id"], name=op.f("fk_order_line_order_id"), ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["item_id"], ["item.id"], name=op.f("fk_order_line_item_id")),
        sa.PrimaryKeyConstraint("order_id", "item_id", name=op.f("pk_order_line")),
    )
    op.create_index(op.f("ix_order_line_item_id"), "order_line", ["item_id"])
    op.create_table(
        "idempotency_key",
        sa.Column("user_id", BIG, nullable=False),
        sa.Column("key", sa.String(), nullable=False),
        sa.Column("body_hash", sa.String(), nullable=False),
        sa.Column("answer", sa.String(), nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.ForeignKeyConstraint(["user_id"], ["user.id"], name=op.f("fk_idempotency_key_user_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("user_id", "key", name=op.f("pk_idempotency_key")),
    )
    op.create_index(op.f("ix_idempotency_key_created_at"), "idempotency_key", ["created_at"])
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
        sa.ForeignKeyConstraint(["creator_id"], ["user.id"], name=op.f("fk_post_creator_id")),
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
        sa.ForeignKeyConstraint(["creator_id"], ["user.id"], name=op.f("fk_comment_creator_id")),
        sa.ForeignKeyConstraint(["post_id"], ["post.id"], name=op.f("fk_comment_post_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_comment")),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_comment_post_id", "comment", ["post_id", "id"])
    op.create_index("ix_comment_creator_id", "comment", ["creator_id"])
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
    op.create_table(
        "audit_entry",
        sa.Column("id", BIG, nullable=False),
        sa.Column("at", TIME, nullable=False),
        sa.Column("actor_id", BIG, nullable=True),
        sa.Column("action", sa.String(), nullable=False),
        sa.Column("entity", sa.String(), nullable=False),
        sa.Column("entity_id", BIG, nullable=False),
        sa.Column("changes", sa.JSON(), nullable=False),
        sa.Column("request_id", sa.String(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_audit_entry")),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_audit_entry_entity", "audit_entry", ["entity", "entity_id", "id"])
    op.create_index("ix_audit_entry_entity_latest", "audit_entry", ["entity", "id"])
    op.create_index("ix_audit_entry_actor_id", "audit_entry", ["actor_id", "id"])


def downgrade() -> None:
    """Drop them again."""
    for table in ("audit_entry", "notification", "comment", "post", "idempotency_key", "order_line", "order"):
        op.drop_table(table)
    op.drop_index("ix_item_low_stock", "item")
