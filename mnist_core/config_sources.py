"""Build a configuration from ``defaults < recipe < file < environment < flags``; refuse what is wrong, all at once.

pydantic-settings makes the command line from the same fields. An unknown flag, file key or ``MNIST_`` variable is
refused with the nearest known name, and every message names the value received and what was expected.

Both are told in one message. What an unknown name may explain is not: that a value is missing, say.
"""

from __future__ import annotations

import difflib
import json
import os
import re
import tomllib
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Collection, Iterable, Sequence
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

_SERVICE_LINK: Final = re.compile(r"_(SERVICE_HOST|SERVICE_PORT(_.*)?|PORT_\d+_(TCP|UDP|SCTP)(_.*)?)$")
_LINKED: Final = re.compile(r"(tcp|udp|sctp)://")
"""Kubernetes sets such variables in every pod, for each Service: ``MNIST_SERVE_SVC_PORT=tcp://10.0.0.1:8000``."""

Config = TypeVar("Config", bound=CommandConfig)


def load_config(cls: type[Config], argv: Sequence[str]) -> Config:
    """Read one command's configuration.

    Args:
        cls: The command's configuration class.
        argv: The command line after the command's name.

    Returns:
        The validated, frozen configuration.

    Raises:
        ConfigError: Flags, variables or file keys are unknown, or values are wrong: all in one message.
        SystemExit: ``--help`` was asked for and printed (code 0).
    """
    values = _read_file(_config_path(argv))
    problems = [
        *_unknown(_flags_in(argv), _known_flags(cls), "unknown flag"),
        *_unknown(_variables(), _known_variables(), "unknown environment variable"),
        *_unknown(values, cls.model_fields, "unknown field in the --config file:"),
    ]
    words, guessed = _without_unknown_flags(argv, _known_flags(cls))
    try:
        config = _validate(cls, words, {name: values[name] for name in values if name in cls.model_fields})
    except ValidationError as err:
        wrong = [each for each in err.errors() if not problems or _stands_alone(each, cls, guessed)]
        raise ConfigError("; ".join([*problems, *(_describe(each, cls) for each in wrong)])) from err
    except SettingsError as err:
        raise ConfigError("; ".join([*problems, *([] if guessed else [_argparse_message(err, cls)])])) from err
    if problems:
        raise ConfigError("; ".join(problems))
    return config


def format_help(cls: type[CommandConfig]) -> str:
    """The text of ``mnist COMMAND --help``."""
    return CliApp.format_help(_settings_class(cls))


def _validate(cls: type[Config], words: Sequence[str], values: dict[str, Any]) -> Config:
    settings_class = _settings_class(cls)
    flags = CliSettingsSource[Any](settings_class, parse_args_method=_parser_of_words(cls))
    settings = CliApp.run(settings_class, cli_args=list(words), cli_settings_source=flags, **values)
    return cls(**settings.model_dump(exclude={"config"}))


def _parser_of_words(cls: type[CommandConfig]) -> Callable[..., Namespace]:
    def parse(parser: ArgumentParser, words: Sequence[str], namespace: Namespace | None = None) -> Namespace:
        # Flags may stand between arguments: mnist data fetch --verbose mnist.
        parsed = parser.parse_intermixed_args(words, namespace)
        for name, value in vars(parsed).items():
            if isinstance(value, list) and _is_positional(cls, name):
                # In a list pydantic-settings would look for commas, quotes, brackets and words such as true, which
                # names of files may have; a string it takes for JSON.
                setattr(parsed, name, json.dumps(value))
        return parsed

    return parse


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


def _without_unknown_flags(argv: Sequence[str], known: Collection[str]) -> tuple[list[str], bool]:
    """Leave out unknown flags, each with the word behind it; whether there was such a word, which is a guess."""
    end = argv.index("--") if "--" in argv else len(argv)
    kept: list[str] = []
    guessed = skip = False
    for word in argv[:end]:
        is_flag = word.startswith("--")
        if is_flag and word.split("=")[0] not in known:
            skip = "=" not in word
        elif skip and not is_flag:
            guessed, skip = True, False
        else:
            kept.append(word)
            skip = False
    return [*kept, *argv[end:]], guessed


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
    ours = {name.upper(): value for name, value in os.environ.items() if name.upper().startswith(ENV_PREFIX)}
    return sorted(name for name, value in ours.items() if not _is_service_link(name, value))


def _is_service_link(name: str, value: str) -> bool:
    return bool(_SERVICE_LINK.search(name) or (name.endswith("_PORT") and _LINKED.match(value)))


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


def _is_positional(cls: type[CommandConfig], name: str) -> bool:
    return name in cls.model_fields and _POSITIONAL in cls.model_fields[name].metadata


def _spell(cls: type[CommandConfig], name: str) -> str:
    """A field as its user writes it: ``--flag``, or ``ARGUMENT`` where it is given by position."""
    if _is_positional(cls, name):
        return name.upper()
    return "--" + name.replace("_", "-")


def _stands_alone(problem: ErrorDetails, cls: type[CommandConfig], guessed: bool) -> bool:
    """Whether a value is wrong even if an unknown name is another's misspelling.

    A rule over several fields may hold with that value, and a guess may have taken an argument for a flag's value.
    """
    if not problem["loc"] or problem["type"] == "missing":
        return False
    return not (guessed and _is_positional(cls, str(problem["loc"][0])))


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
