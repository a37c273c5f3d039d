"""Encoders: images, words and prompts to vectors."""


def load_encoder(name: str = "mini", device: str = "cpu"):
    """An encoder by name: "mini" (embedded), "architecture/pretrained" of open_clip, or a folder with a checkpoint. See `load_open_clip`."""
    from mmclust.encoders.open_clip import load_open_clip

    return load_open_clip(name, device)
