"""ViT, DINOv2 (with or without registers) and DINOv3 of `transformers`, for the networks of timm that compute the same.

Sources: `transformers/models/{vit,dinov2,dinov2_with_registers,dinov3_vit}/{modeling,configuration}_*.py`.
Shapes: B images of H × W pixels, C channels, h × w patches.
"""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from pretrain.models.named_network import with_shapes_only
from pretrain.models.named_spec import NamedSpec
from transfer.weights import huggingface_vit
from transfer.weights.frameworks.record import FrameworkModel
from transfer.weights.known_networks import Shown, shown_by

if TYPE_CHECKING:
    from transfer.weights.backbone import Backbone

WEIGHTS, CONFIG = "model.safetensors", "config.json"


def lacks(backbone: Backbone) -> str | None:
    """Return what the network is if none of `transformers` computes the same, else None."""
    if backbone.spec.as_dict()["name"].startswith("timm:"):
        try:
            config_of(backbone)
            tensors_of(backbone)
            return None
        except ValueError as error:
            return f"{backbone.spec.title} ({error})"
    return f"network called {backbone.spec.as_dict()['name']}"


def config_of(backbone: Backbone) -> dict[str, Any]:
    """Return the content of config.json.

    Raises:
        ValueError: The network is none of the kinds that `transformers` has; the message says why.
    """
    net, state = _network(backbone).net, backbone.state
    shown, kind = _seen(net)
    block = net.blocks[0]
    config = {
        "hidden_size": shown.width,
        "num_hidden_layers": shown.depth,
        "num_attention_heads": block.attn.num_heads,
        "patch_size": shown.patch,
        "image_size": shown.cells * shown.patch or 224,
        "num_channels": 3,
        "layer_norm_eps": net.norm.eps,
        "hidden_act": "silu" if shown.gated and kind.startswith("dinov3") else "gelu",
    }
    if kind == "vit":
        own = {"intermediate_size": shown.inner, "qkv_bias": "net.blocks.0.attn.qkv.bias" in state}
        return {"model_type": "vit", "architectures": ["ViTModel"], **config, **own}
    if kind == "dinov2":
        own = {
            "mlp_ratio": _ratio(shown),
            "use_swiglu_ffn": shown.gated,
            "qkv_bias": "net.blocks.0.attn.qkv.bias" in state,
        }
        if not shown.registers:
            return {"model_type": "dinov2", "architectures": ["Dinov2Model"], **config, **own}
        own["num_register_tokens"] = shown.registers
        return {
            "model_type": "dinov2_with_registers",
            "architectures": ["Dinov2WithRegistersModel"],
            **config,
            **own,
        }
    biased = "net.blocks.0.attn.q_bias" in state
    own = {"intermediate_size": shown.inner, "use_gated_mlp": shown.gated, "num_register_tokens": shown.registers}
    own |= {"query_bias": biased, "key_bias": False, "value_bias": biased, "rope_theta": net.rope.temperature}
    return {"model_type": "dinov3_vit", "architectures": ["DINOv3ViTModel"], **config, **own}


def _network(backbone: Backbone) -> Any:
    assert isinstance(backbone.spec, NamedSpec)
    return with_shapes_only(backbone.spec)


def _seen(net: Any) -> tuple[Shown, str]:
    """Return what the weights of a network of timm show, and its kind: a key of `huggingface_vit.NAMES`."""
    from timm.layers.pos_embed_sincos import RotaryEmbeddingDinoV3
    from timm.models import Eva, VisionTransformer

    shown, state = shown_by(net.state_dict()), net.state_dict()
    if type(net) not in (VisionTransformer, Eva) or shown is None or "cls_token" not in state:
        raise ValueError("transformers has ViT, DINOv2 and DINOv3")
    if shown.cells and net.patch_embed.grid_size != (shown.cells, shown.cells):
        raise ValueError("its positions are not those of square images")
    mlp, scaled = net.blocks[0].mlp, any(n in state for n in ("blocks.0.ls1.gamma", "blocks.0.gamma_1"))
    if (
        not isinstance(mlp.act, nn.SiLU if shown.gated else nn.GELU)
        or getattr(mlp.act, "approximate", "none") != "none"
    ):
        raise ValueError(f"its activation is {type(mlp.act).__name__}")
    norms = {type(norm).__name__ for norm in (net.norm, *(n for b in net.blocks for n in (b.norm1, b.norm2)))}
    if isinstance(net.norm, nn.Identity):
        raise ValueError("it has no norm after its last block")
    if not all(isinstance(norm, nn.LayerNorm) for b in net.blocks for norm in (net.norm, b.norm1, b.norm2)):
        raise ValueError(f"its norms are {', '.join(sorted(norms))}")
    if "blocks.0.attn.proj.bias" not in state:
        raise ValueError("its projections have no bias")
    if type(net) is Eva:
        rope = net.rope
        if not (isinstance(rope, RotaryEmbeddingDinoV3) and rope.rotate_half and scaled) or shown.cells:
            raise ValueError("its positions are not those of DINOv3")
        return shown, "dinov3, gated" if shown.gated else "dinov3"
    if net.no_embed_class != bool(shown.registers) or not shown.cells:
        raise ValueError("its class token or registers have other positions")
    if not scaled and (shown.registers or shown.gated):
        raise ValueError("it has registers or gated MLPs, but no LayerScale")
    return shown, "dinov2" if scaled else "vit"


def _ratio(shown: Shown) -> int:
    """Return the ``mlp_ratio`` of DINOv2, a whole number, from the width inside its MLPs."""
    for ratio in range(1, 17):
        inner = shown.width * ratio
        if (((int(inner * 2 / 3) + 7) // 8 * 8) if shown.gated else inner) == shown.inner:
            return ratio
    raise ValueError(f"its MLPs are {shown.inner} wide")


def tensors_of(backbone: Backbone) -> dict[str, Tensor]:
    """Return the weights by the names of `transformers`.

    Raises:
        ValueError: The network has a weight for which `transformers` has no place.
    """
    shown, kind = _seen(_network(backbone).net)
    state = {name.removeprefix("net."): tensor for name, tensor in backbone.state.items()}
    named: dict[str, Tensor] = {}
    for name, tensor in state.items():
        name = re.sub(r"\.gamma_(\d)$", r".ls\1.gamma", name).replace(".fc1_g.", ".w1.").replace(".fc1_x.", ".w2.")
        if shown.gated:
            name = name.replace("mlp.fc1.", "mlp.w12.").replace("mlp.fc2.", "mlp.w3.")
        named[re.sub(r"attn\.([qv])_bias$", r"attn.\1.bias", name)] = tensor
    if "reg_token" in named:
        named["register_tokens" if kind == "dinov2" else "storage_tokens"] = named.pop("reg_token")
    if kind == "dinov2" and shown.registers:  # the class token's position is part of the token in timm
        named["pos_embed"] = torch.cat([torch.zeros(1, 1, shown.width), named["pos_embed"]], 1)
    if kind != "vit":  # that no image without a mask needs, but transformers expects
        named["mask_token"] = torch.zeros((1, shown.width) if kind == "dinov2" else (1, 1, shown.width))
    return huggingface_vit.as_transformers_names_it(named, kind)


class AsWritten(nn.Module):
    """A network of `transformers`; its state has the names in files, which differ from those of its modules since release 5."""

    def __init__(self, config: dict[str, Any], indices: dict[str, int]) -> None:
        super().__init__()
        self.config, self.indices = config, indices
        self.options = {"add_pooling_layer": False} if config["model_type"] == "vit" else {}
        self.net: Any = None

    def load(self, path: Path) -> None:
        """Load a file as `transformers` does; RuntimeError if weights of the network are not in it, or it holds others."""
        from transformers import AutoModel

        with tempfile.TemporaryDirectory() as folder, _no_bars():
            Path(folder, CONFIG).write_text(json.dumps(self.config), encoding="utf-8")
            Path(folder, WEIGHTS).symlink_to(path.resolve())
            self.net, info = AutoModel.from_pretrained(folder, output_loading_info=True, **self.options)
        if wrong := [f"{key} in {what}" for what in ("missing_keys", "unexpected_keys") for key in info[what]]:
            raise RuntimeError(", ".join(wrong))

    def state_dict(self, *_: Any, **__: Any) -> dict[str, Tensor]:  # type: ignore[override]
        """Return the weights as the network writes them."""
        from safetensors.torch import load_file

        with tempfile.TemporaryDirectory() as folder, _no_bars():
            self.net.save_pretrained(folder, max_shard_size="1TB")
            return {name: tensor.clone() for name, tensor in load_file(Path(folder, WEIGHTS)).items()}

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Return the maps (B, C, h, w) of the stages of `NamedNetwork` for images ``x`` (B, 3, H, W), after the last norm."""
        depth, patch, found = self.config["num_hidden_layers"], self.config["patch_size"], dict[int, Tensor]()

        def keep(number: int) -> Any:
            def hook(_module: nn.Module, _inputs: Any, output: Any) -> None:
                found[number] = output if isinstance(output, Tensor) else output[0]

            return hook

        blocks = next(m for m in self.net.modules() if isinstance(m, nn.ModuleList) and len(m) == depth)
        hooks = [block.register_forward_hook(keep(number)) for number, block in enumerate(blocks)]
        try:
            self.net(pixel_values=x)
        finally:
            for hook in hooks:
                hook.remove()
        norm, cells = getattr(self.net, "layernorm", None) or self.net.norm, [side // patch for side in x.shape[2:]]
        patches = {stage: norm(found[i])[:, -cells[0] * cells[1] :] for stage, i in self.indices.items()}
        return {stage: tokens.transpose(1, 2).unflatten(2, cells) for stage, tokens in patches.items()}


@contextmanager
def _no_bars() -> Iterator[None]:
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def build(backbone: Backbone) -> FrameworkModel:
    """Return the network of `transformers`, which is built when weights are loaded."""
    import transformers  # noqa: F401  # ImportError if it is not installed

    model = AsWritten(config_of(backbone), _network(backbone).indices)
    return FrameworkModel(model, {}, model, maps=model)


def usage(backbone: Backbone, path: Path) -> str:
    """Return the line that loads the weights."""
    config = config_of(backbone)
    more = ", add_pooling_layer=False" if config["model_type"] == "vit" else ""
    return f"model = transformers.{config['architectures'][0]}.from_pretrained({str(path.parent)!r}{more})"
