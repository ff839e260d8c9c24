"""python -m benchmarks.gallery_data PACKAGES DATA: the data of benchmarks.gallery, from packages that were unpacked.

PACKAGES holds, anywhere in it, what these put there; docs/gallery/README.md has the commands and the licences:

    emoji-datasource-google, emoji-datasource-twitter      (npm)     pictures of equal names, 64x64
    plasma-workspace-wallpapers, sweethome3d-furniture     (Debian)  photographs and renderings; meshes
    scikit-image                                           (PyPI)    photographs
"""

import argparse
import random
import re
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from gan_engine.data.voxels import fit, read_mesh

HELD_OUT = 300  # names of emoji, of which those are kept that have no likeness in training
PHOTOS_HELD_OUT = ("astronaut", "chelsea", "coffee", "motorcycle_left", "rocket")
PHOTO_WIDTH = 1280
KINDS = "chair|stool|table|desk"


def emoji(packages: Path, data: Path) -> None:
    """emoji_pairs and emoji_test, A by Google and B by Twitter; emoji_unpaired and emoji_dark, of the first and the
    second half of the pairs' names, the latter with A on black; emoji_dark_test.

    No picture that is held out is there in training in another tone of skin or under another name.
    """
    folders = {kind: found(packages, f"img/{vendor}/64") for kind, vendor in (("A", "google"), ("B", "twitter"))}
    names = sorted(set.intersection(*({path.name for path in folder.glob("*.png")} for folder in folders.values())))
    random.Random(0).shuffle(names)
    shown, train = names[:HELD_OUT], names[HELD_OUT:]
    known = {without_tone(name) for name in train}
    pixels = {kind: {(folder / name).read_bytes() for name in train} for kind, folder in folders.items()}
    shown = [
        name
        for name in shown
        if without_tone(name) not in known
        and not any((folder / name).read_bytes() in pixels[kind] for kind, folder in folders.items())
    ]
    halves = {"A": train[: len(train) // 2], "B": train[len(train) // 2 :]}
    for kind, folder in tqdm(folders.items(), "emoji"):
        dark = "black" if kind == "A" else "white"
        for name in shown:
            on(folder / name, "white").save(made(data / "emoji_test" / kind / name))
            on(folder / name, dark).save(made(data / "emoji_dark_test" / kind / name))
        for name in train:
            on(folder / name, "white").save(made(data / "emoji_pairs" / kind / name))
        for name in halves[kind]:
            on(folder / name, "white").save(made(data / "emoji_unpaired" / f"train{kind}" / name))
            on(folder / name, dark).save(made(data / "emoji_dark" / f"train{kind}" / name))


def without_tone(name: str) -> str:
    """The file name of an emoji without the code points of skin tones and of presentation."""
    return re.sub(r"-1f3f[b-f]|-fe0f", "", name)


def on(path: Path, colour: str) -> Image.Image:
    picture = Image.open(path).convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", picture.size, colour), picture).convert("RGB")


def photos(packages: Path, data: Path) -> None:
    """photos: the largest file of every wallpaper, 1280 pixels wide; photos_test; photos_test_x2, at half the size."""
    for folder in tqdm(sorted(found(packages, "share/wallpapers").glob("*/contents/images*")), "photos"):
        largest = max((Image.open(path) for path in folder.iterdir()), key=lambda picture: picture.width)
        size = (PHOTO_WIDTH, round(largest.height * PHOTO_WIDTH / largest.width))
        photo = largest.convert("RGB").resize(size, Image.Resampling.LANCZOS)
        photo.save(made(data / "photos" / f"{folder.parent.parent.name}-{folder.name}.png"))
    for name in PHOTOS_HELD_OUT:
        photo = Image.open(found(packages, f"skimage/data/{name}.*")).convert("RGB")
        size = [side // 4 * 4 for side in photo.size]
        photo = photo.crop((0, 0, *size))
        photo.save(made(data / "photos_test" / f"{name}.png"))
        small = photo.resize([side // 2 for side in size], Image.Resampling.BICUBIC)
        small.save(made(data / "photos_test_x2" / f"{name}.png"))


def furniture(packages: Path, data: Path) -> None:
    """furniture.npz: the meshes whose names tell one of KINDS in 32x32x32 voxels, in four turns and mirrored."""
    voxels = []
    for archive in sorted(found(packages, "sweethome3d/furniture").glob("*.sh3f")):
        folder = data / "furniture" / archive.stem
        with zipfile.ZipFile(archive) as opened:
            opened.extractall(folder)
        catalog = (folder / "PluginFurnitureCatalog.properties").read_text("latin-1")
        entries = dict(re.findall(r"^((?:name|model)#\d+)\s*=\s*(.*)$", catalog, re.MULTILINE))
        models = [
            folder / model.strip().lstrip("/")
            for key, name in entries.items()
            if key.startswith("name")
            and re.search(KINDS, name, re.IGNORECASE)
            and (model := entries.get(key.replace("name", "model"), "")).endswith(".obj")
        ]
        for path in tqdm(models, archive.stem):
            try:
                voxels.append(fit(read_mesh(path, 32), 32)[0] > 0)
            except ValueError as error:
                print(f"{path}: {error}")
    turned = [np.rot90(sides, turns, axes=(1, 3)) for sides in both(np.stack(voxels)) for turns in range(4)]
    np.savez_compressed(data / "furniture.npz", voxels=np.concatenate(turned))


def both(voxels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return voxels, voxels[:, ::-1]


def found(packages: Path, pattern: str) -> Path:
    """The first path below `packages` that ends as `pattern` says."""
    paths = sorted(packages.rglob(pattern))
    if not paths:
        raise SystemExit(f"want a path that ends in {pattern} below {packages}, and there is none")
    return paths[0]


def made(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("packages", type=Path)
    parser.add_argument("data", type=Path)
    options = parser.parse_args()
    for make in (emoji, photos, furniture):
        make(options.packages, options.data)


if __name__ == "__main__":
    main()
