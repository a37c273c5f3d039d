"""The ten classes of CIFAR-10, and how the multiple-clustering benchmark groups them."""

ANIMALS = ("bird", "cat", "deer", "dog", "frog", "horse")
VEHICLES = ("airplane", "automobile", "ship", "truck")
PHOTO_CLASSES = tuple(sorted(ANIMALS + VEHICLES))  # the order of CIFAR-10 is alphabetical
PHOTO_TYPE = dict.fromkeys(ANIMALS, "animals") | dict.fromkeys(VEHICLES, "transportation")
# The Multi-Sub benchmark only names the environments: that a frog counts as water is our reading.
PHOTO_ENVIRONMENT = dict.fromkeys(PHOTO_CLASSES, "land") | {
    "airplane": "air", "bird": "air", "ship": "water", "frog": "water",
}  # fmt: skip
