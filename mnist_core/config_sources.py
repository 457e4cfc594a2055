"""Build a configuration from ``defaults < recipe < file < environment < flags``; refuse what is wrong, all at once.

pydantic-settings makes the command line from the same fields. An unknown flag, file key or ``MNIST_`` variable is
refused with the nearest known name, and every message names the value received and what was expected.
"""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, CliApp, PydanticBaseSettingsSource, SettingsConfigDict, SettingsError

from mnist_core.config import COMMANDS, CommandConfig
from mnist_core.errors import ConfigError

ENV_PREFIX = "MNIST_"

Config = TypeVar("Config", bound=CommandConfig)


def load_config(cls: type[Config], argv: Sequence[str]) -> Config:
    """Read one command's configuration.

    Args:
        cls: The command's configuration class.
        argv: The command line after the command's name.

    Returns:
        The validated, frozen configuration.

    Raises:
        ConfigError: A flag, variable or file value is unknown or wrong; all problems in one message.
        SystemExit: ``--help`` was asked for and printed (code 0).
    """
    _refuse_unknown_flags(cls, argv)
    _refuse_unknown_variables()
    try:
        settings = CliApp.run(_settings_class(cls), cli_args=list(argv), **_read_file(cls, _config_path(argv)))
        return cls(**settings.model_dump(exclude={"config"}))
    except ValidationError as err:
        raise ConfigError("; ".join(_describe(problem) for problem in err.errors())) from err
    except SettingsError as err:
        raise ConfigError(_argparse_message(err, cls)) from err


def _settings_class(cls: type[Config]) -> type[BaseSettings]:
    class Settings(BaseSettings, cls):  # type: ignore[misc, valid-type]
        model_config = SettingsConfigDict(
            env_prefix=ENV_PREFIX,
            extra="forbid",
            cli_prog_name=f"mnist {cls.command}",
            cli_kebab_case=True,
            cli_implicit_flags=True,
            cli_avoid_json=True,
            cli_hide_none_type=True,
            cli_exit_on_error=False,
            cli_shortcuts={"json-output": "json"},
        )
        config: Path | None = Field(None, description="TOML file with values for this command (field = value)")

        @classmethod
        def settings_customise_sources(
            cls, settings_cls: type[BaseSettings], **sources: PydanticBaseSettingsSource
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            # pydantic-settings puts the flags in front; init_settings holds what the file says.
            return sources["env_settings"], sources["init_settings"]

    Settings.__doc__ = cls.__doc__
    return Settings


def _config_path(argv: Sequence[str]) -> Path | None:
    """The file is needed before the flags are parsed, because it stands below them."""
    for index, word in enumerate(argv):
        if word == "--config" and index + 1 < len(argv):
            return Path(argv[index + 1])
        if word.startswith("--config="):
            return Path(word.removeprefix("--config="))
    from_environment = os.environ.get(ENV_PREFIX + "CONFIG")
    return Path(from_environment) if from_environment else None


def _read_file(cls: type[CommandConfig], path: Path | None) -> dict[str, Any]:
    if path is None:
        return {}
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as err:
        raise ConfigError(f"--config {path}: cannot be read ({err.strerror})") from err
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as err:
        raise ConfigError(f"--config {path}: expected a TOML file of 'field = value' lines, found: {err}") from err
    values = {key.replace("-", "_"): value for key, value in values.items()}
    _refuse_unknown(values, cls.model_fields, f"--config {path}: unknown field")
    return values


def _refuse_unknown_flags(cls: type[CommandConfig], argv: Sequence[str]) -> None:
    known = {"--help", "--config", "--json", "--no-json"}
    for name, field in cls.model_fields.items():
        flag = name.replace("_", "-")
        known |= {f"--{flag}", f"--no-{flag}"} if field.annotation is bool else {f"--{flag}"}
    words = list(argv[: argv.index("--")] if "--" in argv else argv)
    _refuse_unknown((word.split("=")[0] for word in words if word.startswith("--")), known, "unknown flag")


def _refuse_unknown_variables() -> None:
    known = {ENV_PREFIX + name.upper() for cls in COMMANDS for name in cls.model_fields} | {ENV_PREFIX + "CONFIG"}
    variables = sorted(name for name in os.environ if name.startswith(ENV_PREFIX))
    _refuse_unknown(variables, known, "unknown environment variable")


def _refuse_unknown(received: Iterable[str], known: Collection[str], what: str) -> None:
    problems = []
    for name in received:
        if name not in known:
            nearest = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
            problems.append(f"{what} {name}" + (f", did you mean {nearest[0]}?" if nearest else ""))
    if problems:
        raise ConfigError("; ".join(problems))


def _describe(problem: Any) -> str:
    """One problem found by pydantic as ``--flag: received X, expected Y``."""
    message = problem["msg"].removeprefix("Value error, ")
    if not problem["loc"]:
        return str(message)
    flag = "--" + str(problem["loc"][0]).replace("_", "-")
    if problem["type"] == "missing":
        return f"{flag.removeprefix('--')}: missing"
    expected = message.removeprefix("Input should be ")
    return f"{flag}: received {problem['input']!r}, expected {expected}"


def _argparse_message(err: SettingsError, cls: type[CommandConfig]) -> str:
    text = str(err).removeprefix("error parsing CLI: ").strip()
    return f"{text}; see mnist {cls.command} --help"
