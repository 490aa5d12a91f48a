"""The settings of this app, beside those of the kit, and what it is called."""

from functools import lru_cache

from pydantic import EmailStr, Field, SecretStr

from kit.settings import KitSettings, in_development, load_settings

NAME = "Stockroom"
API = "/api/v1"
"""Where the API begins: the prefix of every router."""


class Settings(KitSettings):
    """Every setting: these and the kit's own, each an environment variable with the prefix `APP_`."""

    registration_open: bool = Field(default_factory=in_development)
    admin_email: EmailStr | None = None
    admin_password: SecretStr | None = None
    bcrypt_rounds: int = Field(default=12, ge=4, le=16)
    login_attempts: int = Field(default=5, ge=1)
    login_window_seconds: int = Field(default=900, ge=1, le=365 * 24 * 60 * 60)


@lru_cache
def get_settings() -> Settings:
    """The settings of this process, read once; a wrong one stops it with a sentence."""
    return load_settings(Settings)
