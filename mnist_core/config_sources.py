"""Build a configuration from ``defaults < recipe < file < environment < flags``; refuse what is wrong, all at once.

pydantic-settings makes the command line from the same fields. An unknown flag, file key or ``MNIST_`` variable is
refused with the nearest known name, and every message names the value received and what was expected.
"""

from __future__ import annotations

import difflib
import os
import tomllib
from argparse import ArgumentParser
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar, get_args

from pydantic import Field, ValidationError
from pydantic_core import ErrorDetails
from pydantic_settings import (
    BaseSettings,
    CliApp,
    CliPositionalArg,
    CliSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

from mnist_core.config import COMMANDS
from mnist_core.config_fields import CommandConfig
from mnist_core.errors import ConfigError

ENV_PREFIX: Final = "MNIST_"
SHORTCUTS: Final = {"json-output": "json", "split-digits": "split"}
"""Flags that have a shorter name too. The variable of a field has its long name: MNIST_SPLIT is another command's."""

_POSITIONAL: Final = get_args(CliPositionalArg[str])[1]

Config = TypeVar("Config", bound=CommandConfig)


def load_config(cls: type[Config], argv: Sequence[str]) -> Config:
    """Read one command's configuration.

    Args:
        cls: The command's configuration class.
        argv: The command line after the command's name.

    Returns:
        The validated, frozen configuration.

    Raises:
        ConfigError: Flags, variables or file keys are unknown (all of them in one message), or, where none is,
            values are wrong (likewise).
        SystemExit: ``--help`` was asked for and printed (code 0).
    """
    values = _read_file(_config_path(argv))
    problems = [
        *_unknown(_flags_in(argv), _known_flags(cls), "unknown flag"),
        *_unknown(_variables(), _known_variables(), "unknown environment variable"),
        *_unknown(values, cls.model_fields, "unknown field in the --config file:"),
    ]
    if problems:
        raise ConfigError("; ".join(problems))
    settings_class = _settings_class(cls)
    # Flags may stand between arguments: mnist data fetch --verbose mnist.
    flags = CliSettingsSource[Any](settings_class, parse_args_method=ArgumentParser.parse_intermixed_args)
    try:
        settings = CliApp.run(settings_class, cli_args=list(argv), cli_settings_source=flags, **values)
        return cls(**settings.model_dump(exclude={"config"}))
    except ValidationError as err:
        raise ConfigError("; ".join(_describe(problem, cls) for problem in err.errors())) from err
    except SettingsError as err:
        raise ConfigError(_argparse_message(err, cls)) from err


def format_help(cls: type[CommandConfig]) -> str:
    """The text of ``mnist COMMAND --help``."""
    return CliApp.format_help(_settings_class(cls))


def _settings_class(cls: type[Config]) -> type[BaseSettings]:
    class Settings(BaseSettings, cls):  # type: ignore[misc, valid-type]
        model_config = SettingsConfigDict(
            env_prefix=ENV_PREFIX,
            env_ignore_empty=True,
            extra="forbid",
            cli_prog_name=f"mnist {cls.command}",
            cli_kebab_case=True,
            cli_implicit_flags=True,
            cli_avoid_json=True,
            cli_hide_none_type=True,
            cli_exit_on_error=False,
            cli_shortcuts=SHORTCUTS,
        )
        config: Path | None = Field(None, description="TOML file with values for this command (field = value)")

        @classmethod
        def settings_customise_sources(
            cls,
            settings_cls: type[BaseSettings],  # noqa: ARG003
            init_settings: PydanticBaseSettingsSource,
            env_settings: PydanticBaseSettingsSource,
            dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
            file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            # pydantic-settings puts the flags in front; init_settings holds what the file says.
            return env_settings, init_settings

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


def _read_file(path: Path | None) -> dict[str, Any]:
    if path is None:
        return {}
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as err:
        raise ConfigError(f"--config {path}: cannot be read ({err.strerror})") from err
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as err:
        raise ConfigError(f"--config {path}: expected a TOML file of 'field = value' lines, found: {err}") from err
    return {key.replace("-", "_"): value for key, value in values.items()}


def _flags_in(argv: Sequence[str]) -> list[str]:
    words = argv[: argv.index("--")] if "--" in argv else argv
    return [word.split("=")[0] for word in words if word.startswith("--")]


def _known_flags(cls: type[CommandConfig]) -> set[str]:
    flags = {"--help", "--config"}
    for name, field in cls.model_fields.items():
        spelled = _spell(cls, name)
        names = {spelled} | {f"--{short}" for long, short in SHORTCUTS.items() if spelled == f"--{long}"}
        flags |= names
        if field.annotation is bool:
            flags |= {each.replace("--", "--no-", 1) for each in names}
    return flags


def _variables() -> list[str]:
    # In upper case, since pydantic-settings reads them in any.
    return sorted(name.upper() for name in os.environ if name.upper().startswith(ENV_PREFIX))


def _known_variables() -> set[str]:
    # One environment serves all commands, so a variable that another command understands is no mistake.
    return {ENV_PREFIX + name.upper() for cls in COMMANDS for name in cls.model_fields} | {ENV_PREFIX + "CONFIG"}


def _unknown(received: Iterable[str], known: Collection[str], what: str) -> list[str]:
    problems = []
    for name in received:
        if name not in known:
            nearest = difflib.get_close_matches(name, known, n=1)
            problems.append(f"{what} {name}" + (f", did you mean {nearest[0]}?" if nearest else ""))
    return problems


def _spell(cls: type[CommandConfig], name: str) -> str:
    """A field as its user writes it: ``--flag``, or ``ARGUMENT`` where it is given by position."""
    if _POSITIONAL in cls.model_fields[name].metadata:
        return name.upper()
    return "--" + name.replace("_", "-")


def _describe(problem: ErrorDetails, cls: type[CommandConfig]) -> str:
    """One problem found by pydantic as ``--flag: received X, expected Y``."""
    message = problem["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
    if not problem["loc"]:
        return message
    name = _spell(cls, str(problem["loc"][0]))
    if problem["type"] == "missing":
        return f"{name}: missing"
    return f"{name}: received {problem['input']!r}, expected {message}"


def _argparse_message(err: SettingsError, cls: type[CommandConfig]) -> str:
    text = str(err).removeprefix("error parsing CLI: ").strip()
    return f"{text}; see mnist {cls.command} --help"
