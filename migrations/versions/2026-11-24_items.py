"""Items."""

import sqlalchemy as sa
from alembic import op

revision = "items"
down_revision = "notifications"
branch_labels = None
depends_on = None

BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
TEXT = sa.String().with_variant(sa.String(collation="C"), "postgresql")
TIME = sa.DateTime(timezone=True)
LOW_STOCK = sa.text("quantity <= reorder_level")


def upgrade() -> None:
    """Make the table of the stock."""
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
    op.create_index("ix_item_low_stock", "item", ["name"], sqlite_where=LOW_STOCK, postgresql_where=LOW_STOCK)


def downgrade() -> None:
    """Drop it again."""
    op.drop_table("item")
