"""The ten classes of CIFAR-10, and their groups for the criteria type and environment."""

ANIMALS = ("bird", "cat", "deer", "dog", "frog", "horse")
VEHICLES = ("airplane", "automobile", "ship", "truck")
PHOTO_CLASSES = tuple(sorted(ANIMALS + VEHICLES))  # the order of CIFAR-10 is alphabetical
PHOTO_TYPE = dict.fromkeys(ANIMALS, "animals") | dict.fromkeys(VEHICLES, "transportation")
# Multi-Sub only names the three environments: that a frog belongs to water is our choice [?].
PHOTO_ENVIRONMENT = dict.fromkeys(PHOTO_CLASSES, "land") | {
    "airplane": "air", "bird": "air", "ship": "water", "frog": "water",
}  # fmt: skip
