"""What the tests of inputs and readers share: real images, and reading a plan to its end."""

import io
import json
from dataclasses import asdict
from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image

from mnist_core.errors import ContainerTornError, DatasetError
from mnist_core.inputs.plan import Unit, plan_inputs
from mnist_core.inputs.readers import read_unit

MAX_IMAGE_BYTES = 100_000


class Item(NamedTuple):
    id: str
    label: int | None
    content: object


def make_images(count, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, 28, 28), np.uint8)


def png(seed=0):
    file = io.BytesIO()
    Image.fromarray(make_images(1, seed)[0]).save(file, "png")
    return file.getvalue()


def write_files(folder, *names):
    """Write a different image to each file, and return what was written, by name."""
    contents = {name: png(seed) for seed, name in enumerate(names)}
    for name, content in contents.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return contents


def items_of_unit(unit, max_image_bytes=MAX_IMAGE_BYTES, batch_size=3):
    """Read a unit that has travelled as JSON, and check what holds for every unit."""
    copy = Unit(**json.loads(json.dumps(asdict(unit))))
    assert copy == unit
    items = []
    for batch in read_unit(copy, max_image_bytes=max_image_bytes, batch_size=batch_size):
        contents = batch.contents if batch.images is None else list(batch.images)
        assert (batch.images is None) != (batch.contents is None)
        assert len(batch) == len(batch.labels) == len(contents) <= batch_size
        assert batch.images is None or (batch.images.dtype == np.uint8 and batch.images.shape[1:] == (28, 28))
        items += map(Item, batch.ids, batch.labels, contents)
    torn = [item for item in items if isinstance(item.content, ContainerTornError)]
    assert torn in ([], items[-1:])
    return items


def items_of(*inputs, **options):
    plan = plan_inputs([str(given) for given in inputs], **options)
    items = [item for unit in plan.units for item in items_of_unit(unit)]
    ids = [item.id.encode() for item in items]
    assert len(set(ids)) == len(ids)
    is_torn = any(isinstance(item.content, ContainerTornError) for item in items)
    assert is_torn or plan.num_items in (None, len(items))
    return items


def ids_of(*inputs, **options):
    return [item.id for item in items_of(*inputs, **options)]


def refusal_of(*inputs, **options):
    with pytest.raises(DatasetError) as refusal:
        plan_inputs([str(given) for given in inputs], **options)
    message = str(refusal.value)
    assert "\n" not in message
    return message
