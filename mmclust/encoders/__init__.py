"""Encoders: images, words and prompts to vectors."""


def load_encoder(name: str = "mini", device: str = "cpu", autocast: bool = False):
    """An encoder by name: "mini" (embedded), "architecture/pretrained" of open_clip, or a folder with a checkpoint. See `load_open_clip`.

    `autocast` runs its towers in bfloat16: faster on a GPU, results to about two digits less."""
    from mmclust.encoders.open_clip import load_open_clip

    return load_open_clip(name, device, autocast)
