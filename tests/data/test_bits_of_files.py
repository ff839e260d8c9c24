"""Files that have fewer than 16 bits are counted where 16 are wanted: no bit is lost, and none is added, in silence."""

import base64
import io

import numpy as np
import pytest
from PIL import Image, ImageFile, features
from PIL.PngImagePlugin import PngInfo

from gan_engine.data import DataConfig, describe, load
from gan_engine.data.decode import read_picture
from gan_engine.data.planes import sixteen_bits

DEEP = np.linspace(0, 65535, 64).astype(np.uint16).reshape(8, 8)
SHALLOW = (DEEP >> 8).astype(np.uint8)
AT_MOST_8 = "with at most 8 bits (--bits 16 only makes their resizing finer)"
# White pictures of 8x8 pixels by libavif's encoder, in grey with 10 bits and in RGB with 12. Pillow writes 8 bits only.
AVIF = {
    10: "AAAAHGZ0eXBhdmlmAAAAAGF2aWZtaWYxbWlhZgAAAOltZXRhAAAAAAAAACFoZGxyAAAAAAAAAABwaWN0AAAAAAAAAAAAAAAAAAAAAA5waXRt"
    "AAAAAAABAAAAHmlsb2MAAAAARAAAAQABAAAAAQAAAQ0AAAATAAAAKGlpbmYAAAAAAAEAAAAaaW5mZQIAAAAAAQAAYXYwMUNvbG9yAAAAAGhpcHJw"
    "AAAASWlwY28AAAAUaXNwZQAAAAAAAAAIAAAACAAAAA5waXhpAAAAAAEKAAAADGF2MUOBAFwAAAAAE2NvbHJuY2x4AAIAAgACgAAAABdpcG1hAAAA"
    "AAAAAAEAAQQBAoMEAAAAG21kYXQSAAoFGAi/Y1AyCBAAABjeoKmb",
    12: "AAAAHGZ0eXBhdmlmAAAAAGF2aWZtaWYxbWlhZgAAAOttZXRhAAAAAAAAACFoZGxyAAAAAAAAAABwaWN0AAAAAAAAAAAAAAAAAAAAAA5waXRt"
    "AAAAAAABAAAAHmlsb2MAAAAARAAAAQABAAAAAQAAAQ8AAAAgAAAAKGlpbmYAAAAAAAEAAAAaaW5mZQIAAAAAAQAAYXYwMUNvbG9yAAAAAGppcHJw"
    "AAAAS2lwY28AAAAUaXNwZQAAAAAAAAAIAAAACAAAABBwaXhpAAAAAAMMDAwAAAAMYXYxQ4FAYAAAAAATY29scm5jbHgAAgACAAaAAAAAF2lwbWEA"
    "AAAAAAAAAQABBAECgwQAAAAobWRhdBIACghYCL9rQICBojISGUJjBMTTTTNAAACQP5sMYIpm",
}
NEEDS_AVIF = pytest.mark.skipif(not features.check("avif"), reason="this Pillow reads no AVIF")


def encoded(values, kind="PNG"):
    file = io.BytesIO()
    Image.fromarray(values).save(file, kind)
    return file.getvalue()


def folder_of(path, **files):
    path.mkdir(parents=True)
    for name, content in files.items():
        (path / name.replace("_", ".")).write_bytes(content)
    return path


def notes(source, bits=16, **options):
    return load(DataConfig(str(source), bits=bits), resolution=8, channels=1, **options).notes


def test_pictures_of_8_bits_are_counted(tmp_path):
    files = {"a_png": encoded(SHALLOW), "b_png": encoded(SHALLOW > 99), "c_jpg": encoded(SHALLOW, "JPEG")}
    folder = folder_of(tmp_path / "photos", **files)
    data = load(DataConfig(str(folder), bits=16), resolution=8, channels=1)
    assert describe(data) == f"photos: 3 images 1x8x8 of 16 bits, no labels, 0.0 MB; 3 {AT_MOST_8}"
    assert notes(folder) == (f"3 {AT_MOST_8}", "from the cache")
    assert notes(folder, bits=8) == ()


def test_pictures_of_16_bits_are_not_counted(tmp_path):
    files = {"a_png": encoded(DEEP), "b_tif": encoded(DEEP, "TIFF"), "c_png": encoded(SHALLOW)}
    assert notes(folder_of(tmp_path / "mixed", **files)) == (f"1 {AT_MOST_8}",)
    del files["c_png"]
    assert notes(folder_of(tmp_path / "deep", **files)) == ()


def test_the_files_of_both_sides_of_translations_are_counted(tmp_path):
    for side in ("A", "B"):
        folder_of(tmp_path / "sides" / side, a_png=encoded(SHALLOW if side == "A" else DEEP))
    assert notes(tmp_path / "sides", kind="pairs") == (f"1 {AT_MOST_8}",)
    assert notes(tmp_path / "sides", kind="unpaired") == (f"A: 1 {AT_MOST_8}",)


def test_a_text_in_a_png_says_nothing_of_its_bits():
    file, words, remarks = io.BytesIO(), PngInfo(), []
    words.add_text("bit_depth", "many")
    Image.fromarray(SHALLOW).save(file, "PNG", pnginfo=words)
    read_picture(file, channels=1, bits=16, remarks=remarks)
    assert remarks == [AT_MOST_8]


@NEEDS_AVIF
@pytest.mark.parametrize("bits", AVIF)
@pytest.mark.parametrize("channels", [1, 3])
def test_an_avif_of_more_bits_is_read_with_8_and_counted(tmp_path, bits, channels):
    content, remarks = base64.b64decode(AVIF[bits]), []
    deep = read_picture(io.BytesIO(content), channels=channels, bits=16, remarks=remarks).pixels()
    eight = np.atleast_3d(read_picture(io.BytesIO(content), channels=channels)).transpose(2, 0, 1)
    assert np.array_equal(deep, eight * np.uint16(257)) and (eight >= 254).all()
    want = f"in AVIF with {bits} bits (read with 8)"
    assert remarks == [want]
    folder = folder_of(tmp_path / "hdr", a_avif=content, b_avif=content, c_avif=encoded(SHALLOW, "AVIF"))
    assert notes(folder) == (f"2 {want}", f"1 {AT_MOST_8}")
    assert notes(folder, bits=8) == ()


@pytest.mark.parametrize(
    ("bits", "want"),
    [(8, AT_MOST_8), (10, "in HEIF with 10 bits (read with 8)"), (12, "in HEIF with 12 bits (read with 8)")],
)
def test_a_heif_of_more_bits_is_counted(bits, want):
    class Heif(ImageFile.ImageFile):
        """What pillow-heif gives of a picture in colour: 8 bits, and a word on those of the file."""

        format = "HEIF"

        def _open(self):
            self._mode, self._size, self.info["bit_depth"] = "RGB", (1, 1), bits

        def load(self):
            self.im = Image.core.fill("RGB", self.size, (1, 2, 3))

    remarks = []
    picture = sixteen_bits(Heif(io.BytesIO(b"heif")), channels=3, remarks=remarks)
    assert picture.pixels().flatten().tolist() == [257, 514, 771] and remarks == [want]


@pytest.mark.parametrize(
    ("values", "noticed"),
    [
        (SHALLOW, True),
        (SHALLOW > 99, True),
        (SHALLOW.astype(np.uint16), True),
        (SHALLOW.astype(np.int64), True),
        (DEEP, False),
        (DEEP / 65535, False),
        (SHALLOW.astype(np.float32), False),
    ],
    ids=["uint8", "bool", "uint16 of 8 bits", "int64 of 8 bits", "uint16", "floats", "floats to 255"],
)
def test_arrays_of_8_bits_are_noticed(tmp_path, values, noticed):
    np.save(tmp_path / "a.npy", values[None])
    assert (f"values {AT_MOST_8}" in notes(tmp_path / "a.npy")) == noticed
    assert not any("8 bits" in note for note in notes(tmp_path / "a.npy", bits=8))
