"""Fine-tune and evaluate a backbone in Detectron2 itself."""

import warnings

warnings.filterwarnings("ignore", "pkg_resources is deprecated", UserWarning)  # raised by Detectron2's model zoo
