"""The images that an annotation file of COCO's format names. Its annotations are not used: the images have no labels."""

from __future__ import annotations

from pathlib import Path

import msgspec

from pixbench.errors import UserError
from pretrain.data.index import Index, Place
from pretrain.data.sources.builder import Builder
from pretrain.data.sources.list_file import check_there, inside


class _Image(msgspec.Struct):
    file_name: str


class _Annotations(msgspec.Struct):
    images: list[_Image]


def coco(path: Path, folder: str) -> Index:
    """Read the images in the JSON file ``path``, in its order.

    They are in ``folder``. If it is empty: in COCO's own layout (``coco/annotations/instances_train2017.json`` and
    ``coco/train2017/``), or else in the folder of the file.

    Raises:
        UserError: It is not a file of COCO's format, names an image twice, or none of the images is there.
    """
    try:
        images = msgspec.json.decode(path.read_bytes(), type=_Annotations).images
    except msgspec.MsgspecError as error:
        raise UserError(
            f"{path} is not an annotation file of COCO's format ({error}); it needs a list `images` with a `file_name` each"
        ) from error
    beside = path.parent.parent / path.stem.rpartition("_")[2]
    root = Path(folder).expanduser() if folder else beside if beside.is_dir() else path.parent
    builder = Builder()
    for number, image in enumerate(images):
        builder.add(inside(image.file_name, root, f"image {number} of {path}"))
    return check_there(builder.index("coco", Place(str(root)), called=str(path)), root, str(path))
