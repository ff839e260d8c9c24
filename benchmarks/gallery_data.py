"""Make the data of benchmarks.gallery from unpacked packages: python -m benchmarks.gallery_data PACKAGES DATA

The folder PACKAGES holds these packages, at any depth. docs/gallery/README.md has the commands and the licences.

    emoji-datasource-google, emoji-datasource-twitter      (npm)     pictures with the same names, 64x64
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

from gan_engine.data.meshes import read_mesh
from gan_engine.data.voxels import fit

HELD_OUT = 300  # held-out names of emoji, before those with a likeness in training are dropped
PHOTOS_HELD_OUT = ("astronaut", "chelsea", "coffee", "motorcycle_left", "rocket")
PHOTO_WIDTH = 1280
KINDS = "chair|stool|table|desk"


def emoji(packages: Path, data: Path) -> None:
    """Write the folders of emoji, A by Google and B by Twitter.

    emoji_pairs, emoji_test          pairs for training, and held-out pairs
    emoji_unpaired                   A and B of different emoji: the first and the second half of the training names
    emoji_dark, emoji_dark_test      the same with A on black

    No held-out picture occurs in training with another skin tone or under another name.
    """
    folders = {kind: find(packages, f"img/{vendor}/64") for kind, vendor in (("A", "google"), ("B", "twitter"))}
    names = sorted(set.intersection(*({path.name for path in folder.glob("*.png")} for folder in folders.values())))
    random.Random(0).shuffle(names)
    held_out, train = names[:HELD_OUT], names[HELD_OUT:]
    known = {without_tone(name) for name in train}
    contents = {kind: {(folder / name).read_bytes() for name in train} for kind, folder in folders.items()}
    held_out = [
        name
        for name in held_out
        if without_tone(name) not in known
        and not any((folder / name).read_bytes() in contents[kind] for kind, folder in folders.items())
    ]
    halves = {"A": train[: len(train) // 2], "B": train[len(train) // 2 :]}
    for kind, folder in tqdm(folders.items(), "emoji"):
        dark = "black" if kind == "A" else "white"
        for name in held_out:
            on_background(folder / name, "white").save(with_folder(data / "emoji_test" / kind / name))
            on_background(folder / name, dark).save(with_folder(data / "emoji_dark_test" / kind / name))
        for name in train:
            on_background(folder / name, "white").save(with_folder(data / "emoji_pairs" / kind / name))
        for name in halves[kind]:
            on_background(folder / name, "white").save(with_folder(data / "emoji_unpaired" / f"train{kind}" / name))
            on_background(folder / name, dark).save(with_folder(data / "emoji_dark" / f"train{kind}" / name))


def without_tone(name: str) -> str:
    """The file name of an emoji without the code points of skin tones and of the emoji style."""
    return re.sub(r"-1f3f[b-f]|-fe0f", "", name)


def on_background(path: Path, colour: str) -> Image.Image:
    picture = Image.open(path).convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", picture.size, colour), picture).convert("RGB")


def photos(packages: Path, data: Path) -> None:
    """Write photos (the largest file of each wallpaper, 1280 pixels wide), photos_test and photos_test_x2 (halved)."""
    for folder in tqdm(sorted(find(packages, "share/wallpapers").glob("*/contents/images*")), "photos"):
        largest = max((Image.open(path) for path in folder.iterdir()), key=lambda picture: picture.width)
        size = (PHOTO_WIDTH, round(largest.height * PHOTO_WIDTH / largest.width))
        photo = largest.convert("RGB").resize(size, Image.Resampling.LANCZOS)
        photo.save(with_folder(data / "photos" / f"{folder.parent.parent.name}-{folder.name}.png"))
    for name in PHOTOS_HELD_OUT:
        photo = Image.open(find(packages, f"skimage/data/{name}.*")).convert("RGB")
        size = [side // 4 * 4 for side in photo.size]
        photo = photo.crop((0, 0, *size))
        photo.save(with_folder(data / "photos_test" / f"{name}.png"))
        small = photo.resize([side // 2 for side in size], Image.Resampling.BICUBIC)
        small.save(with_folder(data / "photos_test_x2" / f"{name}.png"))


def furniture(packages: Path, data: Path) -> None:
    """Write furniture.npz: meshes with one of KINDS in their names, in 32x32x32 voxels, turned 4 ways and mirrored."""
    voxels = []
    for archive in sorted(find(packages, "sweethome3d/furniture").glob("*.sh3f")):
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
                voxels.append(fit(read_mesh(path, 32)[0], 32)[0] > 0)
            except ValueError as error:
                print(f"{path}: {error}")
    volumes = np.stack(voxels)
    turned = [np.rot90(side, turns, axes=(1, 3)) for side in (volumes, volumes[:, ::-1]) for turns in range(4)]
    np.savez_compressed(data / "furniture.npz", voxels=np.concatenate(turned))


def find(packages: Path, pattern: str) -> Path:
    """The first path below `packages` that matches `pattern`."""
    paths = sorted(packages.rglob(pattern))
    if not paths:
        raise SystemExit(f"error: {packages}: want a path that ends in {pattern}, got none")
    return paths[0]


def with_folder(path: Path) -> Path:
    """`path`, after its folder was made."""
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
