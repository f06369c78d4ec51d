"""Settings, from environment variables with the prefix ``MANYICL_``."""

import os
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

_EXAMPLE = "change-me"

DEFAULT_BASE_MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"


def _user_cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "manyicl"


class Settings(BaseSettings):
    """One installation's settings; every process reads the same names."""

    model_config = SettingsConfigDict(env_prefix="MANYICL_", env_ignore_empty=True, extra="ignore")

    database_url: SecretStr | None = Field(default=None, description="postgresql://… of the only truth")
    broker_url: SecretStr | None = Field(default=None, description="redis://… that carries hints")
    storage_url: str | None = Field(default=None, description="file:///…, s3://…, gs://… or az://… of artifacts")
    engine_url: str | None = Field(
        default=None, description="http://… of the inference engine, or of several, separated by commas"
    )
    secret_key: SecretStr | None = Field(default=None, description="keys the stored hashes of API keys")

    base_model: str | None = Field(
        default=None,
        description=f"the model that the engine serves; {DEFAULT_BASE_MODEL}, or what the folder's files or name say",
    )
    model_cache: Path = Field(default_factory=_user_cache, description="where base models are kept")
    model_folder: Path | None = Field(default=None, description="a folder that already holds the base model")

    host: str = Field(default="127.0.0.1", description="address that api and engine listen on")
    port: int = Field(default=8000, description="port of the api")
    engine_port: int = Field(default=8001, description="port of the engine, where it starts alone")
    cors_origins: str | None = Field(
        default=None, description="origins whose pages may call the api from a browser, separated by commas"
    )
    max_file_bytes: int = Field(
        default=512 * 1024 * 1024, description="largest file in one request, and largest that a job reads, inflated"
    )
    max_upload_bytes: int = Field(
        default=8 << 30, description="largest file in parts; of one for fine-tuning or a batch, no more than these read"
    )

    lease_seconds: float = Field(default=60.0, description="a job whose worker is silent so long is free again")
    dispatch_seconds: float = Field(default=5.0, description="pause between two looks for waiting jobs")
    max_infrastructure_failures: int = Field(default=3, description="lost attempts in a row before a job fails")
    stop_seconds: float = Field(
        default=8.0, ge=3, description="seconds in which a worker that is told to stop (SIGTERM) has ended"
    )
    work_folder: Path | None = Field(default=None, description="scratch space of workers and engine")
    threads: int = Field(default_factory=lambda: os.cpu_count() or 1, description="CPU threads a process")
    job_nice: int = Field(
        default=19, ge=0, le=19, description="how far trainers and evaluations step back where others want the CPU"
    )
    processes: Annotated[int, Field(ge=1)] | Literal["auto"] = Field(
        default="auto", description="processes that train one job together; auto: one a GPU"
    )
    prefix_cache_bytes: int = Field(default=1 << 30, description="memory for compiled contexts in the engine")
    adapter_folder: Path | None = Field(default=None, description="folder from which vLLM servers load adapters")
    max_adapters: int = Field(default=8, ge=1, description="adapters that the engine keeps in memory")
    prefix_eight_bits: bool = Field(default=False, description="keep compiled contexts in 8 bits: half the memory")
    prefix_folder: Path | None = Field(default=None, description="where the engine keeps compiled contexts on disk")
    prefix_disk_bytes: int = Field(default=8 << 30, description="disk space for them")
    engine_rows: int = Field(default=32, description="answers that the engine writes at the same time")
    engine_queue: int = Field(default=128, description="requests that may wait in the engine; more get a 429")
    webhook_private_addresses: bool = Field(default=False, description="send webhooks to private addresses too")
    quota_stored_bytes: int = Field(default=100 << 30, ge=0, description="bytes of files that a project may keep")
    quota_queued_jobs: int = Field(default=100, ge=0, description="jobs and evaluations of a project that may wait")
    quota_running_jobs: int = Field(default=8, ge=0, description="jobs and evaluations of a project that run at once")
    quota_training_tokens_per_day: int = Field(default=10**10, ge=0, description="tokens that a project trains a day")
    quota_requests_per_minute: int = Field(default=60_000, ge=0, description="inference requests a project and minute")
    quota_tokens_per_minute: int = Field(default=10**8, ge=0, description="inference tokens a project and minute")
    log_json: bool = Field(default=False, description="log lines as JSON")

    @field_validator("secret_key", "database_url", "broker_url")
    @classmethod
    def _refuse_an_example(cls, value: SecretStr | None) -> SecretStr | None:
        """Everybody knows what an example says."""
        if value is not None and _EXAMPLE in value.get_secret_value():
            raise ValueError(f"it holds {_EXAMPLE!r}, which is no secret; make one with `openssl rand -hex 24`")
        return value


class WrongSettings(RuntimeError):
    """Environment variables hold what the settings cannot be."""

    def __init__(self, error: ValidationError) -> None:
        wrong = (f"MANYICL_{str(each['loc'][0]).upper()}: {_sentence(each['msg'])}" for each in error.errors())
        super().__init__("; ".join(wrong))


def _sentence(message: str) -> str:
    return message.removeprefix("Value error, ").removeprefix("Input ")


class MissingSetting(RuntimeError):
    """A process was started without a setting that it needs."""

    def __init__(self, name: str) -> None:
        variable = f"MANYICL_{name.upper()}"
        super().__init__(f"{variable} is not set; set it, or run `manyicl up`, which sets all of them")


def required(settings: Settings, name: str) -> str:
    """The value of a setting that this process cannot do without.

    Raises:
        MissingSetting: it is not set.
    """
    value = getattr(settings, name)
    if value is None:
        raise MissingSetting(name)
    return value.get_secret_value() if isinstance(value, SecretStr) else str(value)


@lru_cache(maxsize=1)
def get_settings() -> Settings:
    """Return this process's settings, read once.

    Raises:
        WrongSettings: a variable holds what its setting cannot be.
    """
    try:
        return Settings()
    except ValidationError as error:
        raise WrongSettings(error) from None  # its own text shows the values, secrets among them
