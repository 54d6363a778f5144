"""What all settings have in common: an unknown key is an error, and nothing changes them."""

from pydantic import BaseModel, ConfigDict


class Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)
