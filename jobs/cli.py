"""The ``mnist`` command: find the command, read its configuration, run it, print its result, say how it ended.

stdout carries the result (a summary for people, or one JSON object with ``--json``); logs and progress go to
stderr. Exit codes: 0 done, 1 failed with one line ``error: ...``, 2 wrong usage. Any other end is a bug and
shows its traceback. A command's module is imported only when it is run, so ``mnist --help`` answers at once.
"""

from __future__ import annotations

import difflib
import importlib
import io
import json
import logging
import os
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Any

from mnist_core.config import COMMANDS
from mnist_core.config_cluster import SubmitFields
from mnist_core.config_fields import CommandConfig
from mnist_core.config_sources import format_help, load_config
from mnist_core.errors import ConfigError, MnistError

EXIT_DONE, EXIT_FAILED, EXIT_USAGE = 0, 1, 2


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: The command line after ``mnist``; that of the process if None.

    Returns:
        The exit code: 0 done, 1 failed, 2 wrong usage.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        code, problem = _answer(words, own_process=argv is None)
        return _fail(problem, EXIT_FAILED) if problem else code
    except ConfigError as err:
        return _fail(str(err), EXIT_USAGE)
    except MnistError as err:
        return _fail(str(err), EXIT_FAILED)
    except KeyboardInterrupt:
        return _fail("interrupted", EXIT_FAILED)


def _answer(words: list[str], *, own_process: bool) -> tuple[int, str | None]:
    """Do what the command line asks for and print it; what is wrong although there is an answer is returned."""
    if words and words[0] in ("-h", "--help"):
        return _deliver(_overview()), None
    cls = _find_command(words[0] if words else "")
    if {"-h", "--help"} & set(words):
        return _deliver(format_help(cls)), None
    config = load_config(cls, words[1:])
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # names of files may hold any bytes
    if own_process and not config.verbose:
        _hush_native_libraries()
    _set_up_logging(config.verbose)
    if isinstance(config, SubmitFields) and config.address is not None:
        return _answer_elsewhere(config)
    module = _module_of(config)
    result = module.run(config)
    return _show(config, result, module), result.get("problem")


def _answer_elsewhere(config: Any) -> tuple[int, str | None]:
    """Have the command carried out on a cluster; its results are shown as if it had run here."""
    submit = importlib.import_module("jobs.submit")
    result = submit.run(config, lambda result: _show(config, result, _module_of(config)))
    return _show(config, result, submit) if config.detach else EXIT_DONE, result.get("problem")


def _module_of(config: CommandConfig) -> ModuleType:
    return importlib.import_module(f"{config.package}.{config.command.replace('-', '_')}")


def _show(config: CommandConfig, result: dict[str, Any], module: ModuleType) -> int:
    return _deliver(json.dumps(result) if config.json_output else module.render(result))


def _deliver(text: str) -> int:
    try:
        print(text.rstrip(), flush=True)
    except OSError as err:
        # Point stdout elsewhere so that the interpreter's last flush is quiet.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(err, BrokenPipeError):  # its reader went away and wants no more
            return EXIT_FAILED
        return _fail(f"stdout: cannot be written ({err.strerror}); what was asked for is done", EXIT_FAILED)
    return EXIT_DONE


def _find_command(word: str) -> type[CommandConfig]:
    commands = {cls.command: cls for cls in COMMANDS}
    if word not in commands:
        nearest = difflib.get_close_matches(word, commands, n=1)
        hint = f", did you mean {nearest[0]}?" if nearest else ""
        received = f"unknown command {word!r}{hint}" if word else "no command"
        raise ConfigError(f"{received} (expected one of: {', '.join(commands)})")
    return commands[word]


def _overview() -> str:
    lines = [
        "usage: mnist COMMAND [options]",
        "",
        "Digits on a Ray cluster: train, evaluate, publish, score, serve.",
        "",
        "commands:",
    ]
    lines += [f"  {cls.command:<15} {cls.__doc__}" for cls in COMMANDS]
    return "\n".join([*lines, "", "mnist COMMAND --help shows a command's options."])


def _hush_native_libraries() -> None:
    """Keep stderr for what Python writes: TensorFlow, LiteRT and Ray write to its descriptor, past every logger."""
    ours = os.dup(sys.stderr.fileno())
    with open(os.devnull, "w") as nowhere:  # noqa: PTH123
        os.dup2(nowhere.fileno(), sys.stderr.fileno())
    sys.stderr = os.fdopen(ours, "w", buffering=1, encoding=sys.stderr.encoding, errors="backslashreplace")


def _set_up_logging(verbose: bool) -> None:
    logging.basicConfig(
        stream=sys.stderr,
        level=logging.INFO if verbose else logging.WARNING,
        format="%(levelname)s %(name)s: %(message)s",
    )
    if not verbose:
        logging.getLogger("PIL").setLevel(logging.CRITICAL)  # what is wrong with an image is told in its row


def _fail(message: str, code: int) -> int:
    print(f"error: {' '.join(message.split())}", file=sys.stderr, flush=True)
    return code


if __name__ == "__main__":
    sys.exit(main())
