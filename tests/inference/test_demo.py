"""The demo page: what it holds, and what a headless Chromium draws with it.

The tests of the second kind need Chromium and the npm package onnxruntime-web; `make demo-check` fetches the package.
"""

import base64
import dataclasses
import gzip
import hashlib
import html
import json
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from gan_engine import export, models, report
from gan_engine.data import decode
from gan_engine.inference import demo, directions
from gan_engine.inference.drawing import Drawing
from gan_engine.inference.generator import load
from gan_engine.models.pix2pix import edges
from gan_engine.pictures import files, volumes
from gan_engine.pictures.picture import to_uint8
from gan_engine.system import checkpoint
from tests import chromium
from tests.models.networks import RUNS, build
from tests.training.runs import RECTANGLES

ROOT = Path(__file__).parents[2]
CLASSES = dataclasses.replace(RUNS["stylegan2"].model, c_dim=3)


def write_run(run_dir, name, model=None, classes=()):
    if model is None:
        G, _ = build(name)
    else:
        torch.manual_seed(0)
        G = models.build(model)[0].eval()
    state = {"model": models.to_dict(G.config), "nimg": 1000, "G_ema": G.state_dict(), "class_names": list(classes)}
    checkpoint.Keeper(run_dir, keep=1).save(1000, state)
    return run_dir


@pytest.fixture
def stand_in(tmp_path):
    """A folder that looks like the npm package."""
    (tmp_path / "package" / "dist").mkdir(parents=True)
    (tmp_path / "package" / demo._MODULE).write_bytes(b"export const env = '</script>';")
    (tmp_path / "package" / demo._WASM).write_bytes(b"\0asm")
    return tmp_path / "package"


def part(page, id):
    return re.search(rf'<script type="[^"]*" id="{id}">(.*?)</script>', page, re.DOTALL)[1]


def test_the_page_holds_all_that_it_draws_with(stand_in, tmp_path):
    pytest.importorskip("onnxruntime", reason="the extra export brings onnxruntime")
    run_dir = write_run(tmp_path / "run", "dcgan")
    path, difference = demo.write(run_dir, package=stand_in)
    assert path == run_dir / "demo.html" and difference < 1e-4
    page = path.read_text()
    export.export(export.Options(run_dir, tmp_path / "G.onnx"))
    assert base64.b64decode(part(page, "model")) == (tmp_path / "G.onnx").read_bytes()
    assert gzip.decompress(base64.b64decode(part(page, "wasm"))) == b"\0asm"
    assert gzip.decompress(base64.b64decode(part(page, "module"))) == b"export const env = '</script>';"
    about = json.loads(part(page, "about"))
    assert about["z_dim"] == RUNS["dcgan"].model.z_dim and not about["styles"] and not about["volumes"]
    assert torch.tensor(about["directions"]).shape == (6, about["z_dim"])
    assert about["command"] == f"python -m gan_engine.generate {run_dir}"


def test_the_page_asks_no_network(stand_in):
    page = demo.page("<i>run</i>", "a & b", {"classes": ["</script><b>"]}, b"\xff" * 100, stand_in)
    assert not re.search(r"https?:|<link|<img|<iframe|src=|@import|url\(|<b>|<i>", page)
    assert json.loads(part(page, "about")) == {"classes": ["</script><b>"]}
    policy = re.search(r'<meta http-equiv="Content-Security-Policy" content="([^"]*)">', page)[1]
    found = dict(rule.split(" ", 1) for rule in policy.split("; "))
    assert found["default-src"] == "'none'" and "connect-src" not in found and "unsafe-inline" not in policy
    script, style = (re.search(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL)[1] for tag in ("script", "style"))
    for text, rule in ((script, found["script-src"]), (style, found["style-src"])):
        assert f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'" in rule
    assert page.index("Content-Security-Policy") < page.index("<title>") < page.index("<script")


def test_a_missing_package_is_said_with_the_command(stand_in, tmp_path, monkeypatch):
    (tmp_path / "a" / "b").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "a" / "b")
    with pytest.raises(
        ValueError, match=r"want the npm package.* node_modules/onnxruntime-web here or above; npm inst"
    ):
        demo.find_package(None)
    (tmp_path / "node_modules").mkdir()
    stand_in.rename(tmp_path / "node_modules" / "onnxruntime-web")
    assert demo.find_package(None) == tmp_path / "node_modules" / "onnxruntime-web"
    (tmp_path / "node_modules" / "onnxruntime-web" / demo._WASM).unlink()
    with pytest.raises(ValueError, match=r"1\.21 or newer, with .*threaded\.wasm"):
        demo.find_package(None)
    with pytest.raises(ValueError, match="not in elsewhere; npm install --no-save onnxruntime-web"):
        demo.find_package(Path("elsewhere"))


@pytest.mark.parametrize(
    ("model", "got"),
    [
        (models.points.Config(hidden=(8,)), "points with 2 channels"),
        (models.dcgan.Config(resolution=32, channels=4, width=4), "dcgan with 4 channels"),
    ],
)
def test_what_the_page_cannot_show_is_said_before_a_missing_package(tmp_path, model, got):
    run_dir = write_run(tmp_path / "run", None, model)
    with pytest.raises(ValueError, match=f"demo: want a generator of grey or RGB pictures or volumes, got {got}"):
        demo.write(run_dir, package=tmp_path / "nowhere")


def test_the_command_writes_both_pages(stand_in, tmp_path, capsys):
    pytest.importorskip("onnxruntime", reason="the extra export brings onnxruntime")
    run_dir = write_run(tmp_path / "run", "vanilla")
    flags = [str(run_dir), "--demo", "--onnxruntime-web", str(stand_in)]
    assert report.main(flags) == 2
    assert "run.json" in capsys.readouterr().err and not (run_dir / "demo.html").exists()
    (run_dir / "run.json").write_text(json.dumps({"config": {"preset": "vanilla"}, "starts": []}))
    assert report.main(flags) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert re.fullmatch(rf"{run_dir}/demo\.html: \d+\.\d MB; its ONNX draws PyTorch's images up to \de-\d\d", first)
    assert second == f"{run_dir}/report.html" and (run_dir / "demo.html").stat().st_size > 10_000


@pytest.mark.parametrize("flags", [["--best"], ["--direction", "B2A"], ["--onnxruntime-web", "x"]])
def test_flags_of_the_demo_want_the_demo(flags, tmp_path, capsys):
    assert report.main([str(tmp_path), *flags]) == 2
    assert capsys.readouterr().err.startswith(f"error: {flags[0][2:].replace('-', '_')}: want --demo beside it")


class Linear(nn.Module):
    def __init__(self, matrix):
        super().__init__()
        self.config = SimpleNamespace(z_dim=matrix.shape[1], c_dim=0)
        self.weight = nn.Parameter(matrix, requires_grad=False)

    def forward(self, z, c=None):
        return (z @ self.weight.t())[:, None, None]

    @property
    def mapping(self):
        return lambda z, c=None: self(z)[:, 0, 0] + 5


def test_directions_are_those_of_most_change():
    U, V = (torch.linalg.qr(torch.randn(5, 5, generator=torch.Generator().manual_seed(i)))[0] for i in (0, 1))
    lengths = torch.tensor([9.0, 4.0, 1.0, 0.1, 0.01])
    G = Linear(U @ torch.diag(lengths) @ V.t())
    trained = SimpleNamespace(network=G, config=G.config)
    of_z = directions.of_z(trained, 3)
    torch.testing.assert_close(of_z @ of_z.t(), torch.eye(3), atol=1e-5, rtol=0)
    torch.testing.assert_close((of_z @ V[:, :3]).abs(), torch.eye(3), atol=0.1, rtol=0)
    of_w = directions.of_w(trained, 2)
    torch.testing.assert_close(of_w.norm(dim=1), lengths[:2], atol=0, rtol=0.05)
    torch.testing.assert_close((of_w @ U[:, :2]).abs(), torch.diag(lengths[:2]), atol=0.2, rtol=0)
    assert (of_w.gather(1, of_w.abs().argmax(1, keepdim=True)) > 0).all()
    assert len(directions.of_z(trained, 9)) == len(directions.of_w(trained, 9)) == 5


# ---- in a browser


@pytest.fixture(scope="module")
def package():
    found = [ROOT / folder / "node_modules" / demo.PACKAGE for folder in ("build/npm", ".")]
    there = next((folder for folder in found if (folder / demo._WASM).is_file()), None)
    return there or pytest.skip("the npm package onnxruntime-web is not here: make demo-check fetches it")


@pytest.fixture(scope="module")
def browser():
    if chromium.PROGRAM is None:
        pytest.skip("Chromium is not installed")
    pytest.importorskip("onnxruntime", reason="the extra export brings onnxruntime")
    started = chromium.Chromium()
    yield started
    started.close()


@pytest.fixture(scope="module")
def opened(package, browser, tmp_path_factory):
    """Opens the page of a run in the browser, and returns the generator."""
    made = {}

    def open_page(name, model=None, **options):
        if name not in made:
            made[name] = write_run(tmp_path_factory.mktemp("run"), name, model, options.pop("classes", ()))
            demo.write(made[name], package=package, **options)
        browser.open(made[name] / "demo.html")
        return load(made[name], "cpu")

    return open_page


def image(browser, expression):
    data, dims = browser.evaluate(f"(async () => {{ const x = await {expression}; return [[...x.data], x.dims]; }})()")
    return torch.tensor(data).reshape(dims)


def given(names, inputs):
    tensors = {name: f"[Float32Array.from({x.flatten().tolist()}), {list(x.shape)}]" for name, x in zip(names, inputs)}
    return f"{{{', '.join(f'{name}: {x}' for name, x in tensors.items())}}}"


def pixels(browser, id="img"):
    """The bytes [H, W, 3] of a canvas, once the page has nothing more to draw."""
    code = f"""(async () => {{
        while (running) await running;
        const canvas = element("{id}");
        const data = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
        return [canvas.height, canvas.width, [...data]];
    }})()"""
    height, width, data = browser.evaluate(code)
    assert set(data[3::4]) == {255}
    return np.array(data, dtype=np.uint8).reshape(height, width, 4)[..., :3]


def assert_shown(browser, img, id="img"):
    """The canvas shows img [1, C, H, W]; rounding may move a few bytes by 1."""
    wanted = np.broadcast_to(to_uint8(img)[0], (*img.shape[2:], 3)).astype(int)
    difference = np.abs(pixels(browser, id) - wanted)
    assert difference.max() <= 1 and (difference > 0).mean() < 0.02


def set_input(browser, id, value):
    browser.evaluate(f"element('{id}').value = {value!r}; element('{id}').dispatchEvent(new Event('input'))")


@pytest.mark.parametrize("name", [name for name, run in RUNS.items() if models.data_kind(run.model) != "points"])
def test_a_browser_draws_pytorchs_images(name, opened, browser):
    drawing = Drawing(opened(name), shifts=True)
    for num, taller in ((1, 0), (3, 2 if drawing.any_sides else 0)):
        inputs = drawing.examples(num, taller=taller)
        wanted = drawing(*inputs)
        got = image(browser, f"draw({given(drawing.names, inputs)})")
        torch.testing.assert_close(got, wanted, rtol=0, atol=1e-4 * float(wanted.abs().max()))
    assert [address.split(":")[0] for address in browser.requests] == ["file", "blob"]


def test_noise_of_a_seed_is_pytorchs(opened, browser):
    opened("dcgan")
    for num in (1, 2, 5, 8, 15, 16, 17, 32, 100, 512, 700):
        for seed in (0, 7, 2**32 - 1):
            wanted = torch.randn(num, generator=torch.Generator().manual_seed(seed))
            got = torch.tensor(browser.evaluate(f"[...randn({num}, {seed})]"))
            torch.testing.assert_close(got, wanted, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "model"), [("cgan", None), ("stylegan2 with classes", CLASSES), ("vanilla", None), ("lapgan", None)]
)
def test_a_seed_gives_the_picture_of_generate(name, model, opened, browser):
    trained = opened(name, model)
    assert_shown(browser, trained.sample(1, seed=0, class_=0 if trained.config.c_dim else None))
    options = {"class_": 2} if trained.config.c_dim else {}
    if options:
        set_input(browser, "class", "2")
    if model is CLASSES:
        options["truncation"] = 0.5
        set_input(browser, "truncation", "0.5")
    set_input(browser, "seed", "41")
    browser.evaluate("element('new').click()")
    assert_shown(browser, trained.sample(1, seed=42, **options))
    shown = browser.evaluate("element('command').textContent").split("generate ")[1].split()[1:]
    wanted = {"class_": " --class=2", "truncation": " --truncation=0.5"}
    assert shown == f"--seeds=42{''.join(wanted[name] for name in options)}".split()
    set_input(browser, "seed", "-1")
    browser.evaluate("running")
    assert "want a whole number" in browser.evaluate("document.querySelector('#state.error').textContent")


def test_sliders_move_along_the_directions(opened, browser):
    trained = opened("dcgan")
    about = browser.evaluate("about")
    set_input(browser, "direction2", "1.5")
    z = torch.randn(1, trained.config.z_dim, generator=torch.Generator().manual_seed(0))
    assert_shown(browser, trained(z + 1.5 * torch.tensor(about["directions"][1])))
    assert browser.evaluate("element('command').textContent").endswith("# with the sliders at 0")
    browser.evaluate("element('reset').click()")
    assert_shown(browser, trained(z))
    trained = opened("stylegan2")
    set_input(browser, "direction1", "-2")
    with torch.no_grad():
        ws = trained.network.ws(torch.randn(1, trained.config.z_dim, generator=torch.Generator().manual_seed(0)))
        moved = ws - 2 * torch.tensor(browser.evaluate("about")["directions"][0])
        assert_shown(browser, trained.network.synthesis(moved))


def test_classes_have_their_names(opened, browser):
    names = ("cat", "</script><b>dog", "a b", "d", "e")
    opened("dcgan with names", RUNS["dcgan with classes"].model, classes=names)
    options = browser.evaluate("[...element('class').options].map((option) => [option.text, option.value])")
    assert options == [["cat", "cat"], ["</script><b>dog", "1"], ["a b", "2"], ["d", "d"], ["e", "e"]]


def test_volumes_are_rendered_and_turn(opened, browser):
    trained = opened("gan3d")
    volume = trained.sample(1, seed=0)
    wanted = volumes.render(volume)
    got = image(browser, f"render({{data: {volume.flatten().tolist()}, dims: {list(volume.shape)}}}, 30)")
    assert got.shape == wanted.shape
    assert ((got - wanted).abs() > 1e-4).float().mean() < 0.005  # rays that graze a voxel
    first = pixels(browser)
    assert first.min() < 200 < first.max() and first.shape == (*wanted.shape[2:], 3)
    set_input(browser, "turn", "-60")
    assert (pixels(browser) != first).any()


def photo(path, size):
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)).save(path)
    return path


@pytest.mark.parametrize("name", ["pix2pix", "cyclegan", "srgan"])
def test_a_chosen_picture_is_translated_or_enlarged(name, opened, browser, tmp_path):
    trained = opened(name)
    config = trained.config
    side = config.resolution // getattr(config, "scale", 1)
    path = photo(tmp_path / "photo.png", (side, side))
    source = files.to_tensor(decode.pixels(files.read(path, config.source_channels)))
    browser.choose_file("#file", path)
    assert_shown(browser, trained(source))
    assert_shown(browser, source, "source")


def test_a_chosen_picture_is_cut_to_the_shape_of_rectangles(opened, browser, tmp_path):
    trained = opened("rectangles", RECTANGLES["pix2pix"].model)
    browser.choose_file("#file", path := photo(tmp_path / "photo.png", (32, 48)))
    source = files.to_tensor(decode.pixels(files.read(path, 3)))
    assert_shown(browser, trained(source))
    black = np.zeros((40, 100, 3), np.uint8)
    black[:, :20] = black[:, 80:] = 255  # beside the centre, which is 40x60
    Image.fromarray(black).save(tmp_path / "black.png")
    browser.choose_file("#file", tmp_path / "black.png")
    assert_shown(browser, torch.full((1, 3, 32, 48), -1.0), "source")
    assert_shown(browser, trained(torch.full((1, 3, 32, 48), -1.0)))


def test_a_dropped_picture_is_cut_and_enlarged(opened, browser):
    trained = opened("srgan")
    drop = """(async () => {
        const canvas = new OffscreenCanvas(300, 20);
        canvas.getContext("2d").fillRect(0, 0, 300, 20);
        const transfer = new DataTransfer();
        transfer.items.add(new File([await canvas.convertToBlob()], "black.png"));
        document.querySelector(".drop").dispatchEvent(new DragEvent("drop", { dataTransfer: transfer }));
    })()"""
    browser.evaluate(drop)
    assert_shown(browser, trained(torch.full((1, trained.config.channels, 20, 256), -1.0)))
    assert browser.evaluate("element('state').textContent").startswith("black.png, of its middle 256x20 pixels: drawn")


def test_what_is_no_picture_is_said(opened, browser, tmp_path):
    opened("srgan")
    (tmp_path / "text.png").write_text("no picture")
    browser.choose_file("#file", tmp_path / "text.png")
    browser.evaluate("running")
    assert "text.png: not a picture" in browser.evaluate("document.querySelector('#state.error').textContent")


def test_edges_are_taken_as_in_training(opened, browser, tmp_path):
    trained = opened("edges")
    path = photo(tmp_path / "photo.png", (trained.config.resolution, trained.config.resolution))
    grey = files.to_tensor(decode.pixels(files.read(path, 1)))
    browser.choose_file("#file", path)
    assert_shown(browser, edges(grey), "source")
    assert_shown(browser, trained(edges(grey)))
    browser.evaluate("element('extract').click()")
    assert_shown(browser, trained(grey))


def test_the_other_direction_has_its_page(opened, browser, package, tmp_path):
    run_dir = write_run(tmp_path / "run", "cyclegan")
    path, _ = demo.write(run_dir, package=package, direction="B2A")
    browser.open(path)
    drawing = Drawing(load(run_dir, "cpu"), "B2A")
    inputs = drawing.examples(1)
    torch.testing.assert_close(
        image(browser, f"draw({given(drawing.names, inputs)})"), drawing(*inputs), rtol=0, atol=1e-4
    )
    assert "B2A" in html.unescape(browser.evaluate("document.body.textContent"))
    assert browser.evaluate("element('command').textContent").endswith("--direction=B2A")


def test_a_browser_refuses_what_the_page_does_not_hold(opened, browser):
    opened("dcgan")
    refusals = {
        "fetch('data:,x')": "connect-src",
        "import('data:text/javascript,1')": "script-src-elem",
        "new Worker(URL.createObjectURL(new Blob()))": "worker-src",
        "Object.assign(new Image(), { src: 'http://127.0.0.1:9/x.png' })": "img-src",
    }
    for tried, rule in refusals.items():
        code = f"""new Promise((resolve) => {{
            const told = (event) => resolve(event.effectiveDirective);
            document.addEventListener("securitypolicyviolation", told, {{ once: true }});
            (async () => {tried})().catch(() => {{}});
            setTimeout(() => resolve("allowed"), 5000);
        }})"""
        assert browser.evaluate(code) == rule, tried


def test_a_class_is_never_named_by_a_number_that_is_the_name_of_another():
    names = ("a b", "0", "dress", "c d")
    assert [demo._word(names, number) for number in range(4)] == ["'a b'", "0", "dress", "3"]
