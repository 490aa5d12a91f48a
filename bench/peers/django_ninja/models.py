"""The tables, under the names that all contestants share."""

import os

from django.contrib.auth.hashers import BCryptSHA256PasswordHasher
from django.db import models


class Hasher(BCryptSHA256PasswordHasher):
    rounds = int(os.environ["BENCH_BCRYPT_ROUNDS"])


class Timestamped(models.Model):
    created_at = models.DateTimeField(auto_now_add=True)
    updated_at = models.DateTimeField(auto_now=True)

    class Meta:
        abstract = True


class User(Timestamped):
    email = models.EmailField(unique=True)
    full_name = models.CharField(max_length=255)
    password_hash = models.CharField(max_length=128)
    role = models.CharField(max_length=10, default="member")
    is_active = models.BooleanField(default=True)

    class Meta:
        db_table = "user"


class Item(Timestamped):
    name = models.CharField(max_length=100, db_index=True)
    name_key = models.CharField(max_length=100, unique=True)
    price_cents = models.BigIntegerField()
    quantity = models.BigIntegerField(default=0)
    reorder_level = models.BigIntegerField(default=0)
    tags = models.JSONField(default=list)
    version = models.IntegerField(default=1)

    class Meta:
        db_table = "item"
        constraints = [models.CheckConstraint(condition=models.Q(quantity__gte=0), name="quantity")]


class Order(Timestamped):
    user = models.ForeignKey(User, models.PROTECT)
    status = models.CharField(max_length=10, default="pending")
    total_cents = models.BigIntegerField()
    note = models.CharField(max_length=500, null=True)
    version = models.IntegerField(default=1)

    class Meta:
        db_table = "order"


class OrderLine(models.Model):
    order = models.ForeignKey(Order, models.CASCADE, related_name="lines")
    item = models.ForeignKey(Item, models.PROTECT)
    position = models.IntegerField()
    item_name = models.CharField(max_length=100)
    quantity = models.IntegerField()
    unit_price_cents = models.BigIntegerField()

    class Meta:
        db_table = "order_line"
        ordering = ["position"]


class Post(Timestamped):
    title = models.CharField(max_length=255)
    content = models.TextField()
    creator = models.ForeignKey(User, models.CASCADE)
    version = models.IntegerField(default=1)

    class Meta:
        db_table = "post"


class Comment(Timestamped):
    post = models.ForeignKey(Post, models.CASCADE)
    content = models.TextField()
    creator = models.ForeignKey(User, models.CASCADE)

    class Meta:
        db_table = "comment"
