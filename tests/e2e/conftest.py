"""A real browser on a real endpoint, with a model that can read."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, expect, sync_playwright
from serving import Endpoint, serving
from sheet import Sheet
from trained import publish_trained

WAIT_MS = 20_000
"""Longest wait for what should be there at once, on a busy machine."""

# The rest is what a browser would ask of its maker's hosts when it starts.
FLAGS = [
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]

Open = Callable[..., Sheet]


@pytest.fixture(scope="session")
def data_dir() -> Path | None:
    folder = os.environ.get("MNIST_DATA_DIR")
    return Path(folder).absolute() if folder else None


@pytest.fixture(scope="session")
def trained_storage(data_dir: Path | None, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A storage with the model ``mnist/1``, which reads what people draw."""
    return publish_trained(tmp_path_factory.mktemp("trained"), data_dir)


@pytest.fixture(scope="module")
def endpoint(
    request: pytest.FixtureRequest, trained_storage: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Endpoint]:
    """``mnist serve`` with the flags that the module asks for in ``SERVE_FLAGS``."""
    folder = tmp_path_factory.mktemp("serve")
    flags = getattr(request.module, "SERVE_FLAGS", lambda _: [])(folder)
    with serving(trained_storage, folder, "--max-replicas", "1", *flags) as running:
        yield running


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium without a window. Of a module: while it runs, nothing else in this process can run an event loop."""
    path = os.environ.get("CHROMIUM") or shutil.which("chromium")
    if not path and os.environ.get("TESTS_WITHOUT_BROWSER"):
        pytest.skip("there is no Chromium here, and TESTS_WITHOUT_BROWSER says that this is fine")
    assert path, (
        "no Chromium here: install it (Debian: apt-get install chromium), name it in CHROMIUM, or set "
        "TESTS_WITHOUT_BROWSER=1 to do without the tests of the page"
    )
    expect.set_options(timeout=WAIT_MS)
    with sync_playwright() as playwright, playwright.chromium.launch(executable_path=path, args=FLAGS) as browser:
        yield browser


@pytest.fixture
def open_page(browser: Browser, endpoint: Endpoint) -> Iterator[Open]:
    """Opens the page in a browser without memory; at the end of a test, none of them may have complained.

    What a test expects to be complained of, it takes out of ``Sheet.complaints``.
    """
    sheets: list[Sheet] = []
    with ExitStack() as stack:

        def open_page(**settings: Any) -> Sheet:
            context = stack.enter_context(
                browser.new_context(**{"viewport": {"width": 1280, "height": 800}, **settings})
            )
            context.set_default_timeout(WAIT_MS)
            sheets.append(Sheet(context.new_page()))
            sheets[-1].page.goto(f"{endpoint.http}/")
            sheets[-1].expect_empty()
            return sheets[-1]

        yield open_page
        for sheet in sheets:
            assert not sheet.complaints
            assert sheet.hosts == {urlsplit(endpoint.http).netloc}
            assert sheet.most_at_once <= 1


@pytest.fixture
def sheet(open_page: Open) -> Sheet:
    """The page, just opened on a desk."""
    return open_page()
