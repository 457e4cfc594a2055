"""A process of its own that publishes or promotes; each line of its standard input lets it take one step more.

``publish URI RUN`` stops before every object it writes and says which; ``promote URI VERSION...`` stops once, before
the first. Each prints what came of it as its last lines.
"""

import sys

from published import publish

from mnist_core.registry import promote
from mnist_core.storage import open_storage


def say(line):
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main():
    action, uri, *rest = sys.argv[1:]
    storage = open_storage(uri)
    if action == "publish":
        write_bytes, swap = storage.write_bytes, storage.swap

        def wait(key):
            say(key)
            sys.stdin.readline()

        storage.swap = lambda key, data, expected: (wait(key), swap(key, data, expected))[1]
        storage.write_bytes = lambda key, data: (wait(key), write_bytes(key, data))
        say(publish(storage, run_id=rest[0]).version)
    else:
        say("ready")
        sys.stdin.readline()
        for version in rest:
            say(promote(storage, "mnist", version))


if __name__ == "__main__":
    main()
