"""Orders."""

import sqlalchemy as sa
from alembic import op

revision = "orders"
down_revision = "items"
branch_labels = None
depends_on = None

BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Make the tables of orders and their lines."""
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


def downgrade() -> None:
    """Drop them again."""
    for table in ("order_line", "order"):
        op.drop_table(table)
