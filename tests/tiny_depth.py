"""A tiny depth-estimation checkpoint in the format of a real one."""

from pathlib import Path

import torch
from transformers import DPTConfig, DPTForDepthEstimation
from transformers.models.dpt.image_processing_pil_dpt import DPTImageProcessorPil


def write_tiny_depth(folder: Path) -> Path:
    """Writes a DPT with random weights to `folder`, and returns the folder."""
    torch.manual_seed(0)
    model = DPTForDepthEstimation(
        DPTConfig(
            hidden_size=16,
            num_hidden_layers=4,
            num_attention_heads=2,
            intermediate_size=24,
            image_size=32,
            patch_size=8,
            backbone_out_indices=[0, 1, 2, 3],
            neck_hidden_sizes=[8, 8, 8, 8],
            fusion_hidden_size=8,
            reassemble_factors=[4, 2, 1, 0.5],
            is_hybrid=False,
            initializer_range=0.3,
        )
    )
    # The last layer ends in ReLU: a bias keeps a random model's depth above it.
    model.head.head[4].bias.data.fill_(1.0)
    model.save_pretrained(folder)
    DPTImageProcessorPil(size={"height": 32, "width": 32}).save_pretrained(folder)
    return folder
