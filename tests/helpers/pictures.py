"""Small images of one color, as files and as a zip archive."""

import io
import zipfile

from PIL import Image


def picture(color, file="PNG"):
    data = io.BytesIO()
    Image.new("RGB", (40, 30), color).save(data, file)
    return data.getvalue()


def zip_of(files):
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return data.getvalue()


COLORS = {
    f"{color}-{k}.png": picture(color) for color in ("red", "blue", "green") for k in range(2)
}
