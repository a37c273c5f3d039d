"""The ten classes of CIFAR-10, and what the multiple-clustering benchmark groups them by."""

PHOTO_CLASSES = (
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
)
PHOTO_TYPE = {
    c: "transportation" if c in ("airplane", "automobile", "ship", "truck") else "animals"
    for c in PHOTO_CLASSES
}
# a frog counts as water: our reading of the Multi-Sub benchmark, which names the three environments only
PHOTO_ENVIRONMENT = dict.fromkeys(PHOTO_CLASSES, "land") | {
    "airplane": "air",
    "bird": "air",
    "ship": "water",
    "frog": "water",
}
