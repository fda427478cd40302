"""MMSegmentation's data sets with clear errors. Importing this file imports MMSegmentation and registers them."""

from __future__ import annotations

from typing import Any

from mmseg.datasets import ADE20KDataset, BaseSegDataset, CityscapesDataset, PascalVOCDataset
from mmseg.registry import DATASETS

from pixbench.errors import UserError


class NamingDataset(BaseSegDataset):
    """A data set with errors that name the image, and with the numbers of the label maps as they are."""

    @classmethod
    def get_label_map(cls, new_classes: Any = None) -> None:
        """Return no map: the label maps have the numbers of a user's own classes.

        MMSegmentation takes other classes for a subset of the published ones, and refuses others or renumbers the pixels.
        """

    def prepare_data(self, idx: int) -> Any:
        """Load and augment image ``idx``; raise UserError with its paths if it cannot be read."""
        try:
            return super().prepare_data(idx)
        except (OSError, AssertionError, ValueError, SyntaxError) as error:
            info = self.get_data_info(idx)
            files = f"{info['img_path']} or its label map {info['seg_map_path']}"
            raise UserError(f"{files} cannot be read ({error}); restore it from the data set") from error


for _dataset in (ADE20KDataset, CityscapesDataset, PascalVOCDataset):
    DATASETS.register_module(
        name=f"Naming{_dataset.__name__}", module=type(f"Naming{_dataset.__name__}", (NamingDataset, _dataset), {})
    )
