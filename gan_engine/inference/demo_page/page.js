"use strict";
// The script of a page that gan_engine/inference/demo.py writes. It draws with onnxruntime-web, and asks no network.

const about = JSON.parse(element("about").textContent);
let ort, session;

function element(id) {
  return document.getElementById(id);
}

// ---- noise

// 32 random bits a call: MT19937 (Matsumoto and Nishimura 1998), as torch.Generator().manual_seed(seed) has it.
function mersenneTwister(seed) {
  const state = new Uint32Array(624);
  state[0] = seed;
  for (let i = 1; i < 624; i++) state[i] = Math.imul(1812433253, state[i - 1] ^ (state[i - 1] >>> 30)) + i;
  let next = 624;
  return () => {
    if (next === 624) {
      for (let i = 0; i < 624; i++) {
        const x = (state[i] & 0x80000000) | (state[(i + 1) % 624] & 0x7fffffff);
        state[i] = state[(i + 397) % 624] ^ (x >>> 1) ^ (x & 1 ? 0x9908b0df : 0);
      }
      next = 0;
    }
    let y = state[next++];
    y ^= y >>> 11;
    y ^= (y << 7) & 0x9d2c5680;
    y ^= (y << 15) & 0xefc60000;
    return (y ^ (y >>> 18)) >>> 0;
  };
}

// torch.randn(num, generator=torch.Generator().manual_seed(seed)) on a CPU, up to rounding (Box and Muller 1958).
// PyTorch fills 16 numbers at a time, the last 16 anew if num is no multiple, and fewer than 16 in pairs.
function randn(num, seed) {
  const random = mersenneTwister(seed);
  const normal = new Float32Array(num);
  const pair = (i, j, u, v) => {
    const radius = Math.sqrt(-2 * Math.log1p(-u));
    normal[i] = radius * Math.cos(2 * Math.PI * v);
    if (j < num) normal[j] = radius * Math.sin(2 * Math.PI * v);
  };
  const sixteen = (at) => {
    for (let i = at; i < at + 8; i++) pair(i, i + 8, normal[i], normal[i + 8]);
  };
  const fill = (at) => {
    for (let i = at; i < num; i++) normal[i] = (random() & 0xffffff) / 2 ** 24;
  };
  if (num < 16) {
    const uniform = () => ((random() & 0x1fffff) * 2 ** 32 + random()) / 2 ** 53;
    for (let i = 0; i < num; i += 2) {
      const v = uniform();
      pair(i, i + 1, uniform(), v);
    }
    return normal;
  }
  fill(0);
  for (let at = 0; at + 16 <= num; at += 16) sixteen(at);
  if (num % 16) {
    fill(num - 16);
    sixteen(num - 16);
  }
  return normal;
}

// The inputs of the network as {name: [numbers, sizes]}; moves has the number of each slider.
function noiseInputs(seed, kind, truncation, moves) {
  const z = randn(about.z_dim, seed);
  const moved = about.styles ? new Float32Array(about.w_dim) : z;
  moves.forEach((move, k) => about.directions[k].forEach((x, i) => (moved[i] += move * x)));
  const given = { z: [z, [1, about.z_dim]] };
  if (about.c_dim) given.c = [Float32Array.from({ length: about.c_dim }, (_, i) => +(i === kind)), [1, about.c_dim]];
  if (about.styles) {
    given.truncation = [Float32Array.of(truncation), []];
    given.shift = [moved, [1, about.w_dim]];
  }
  return given;
}

// ---- pictures

// img [1, C, H, W] in [-1, 1] -> bytes round(127.5 x + 127.5), computed in float32; C is 1 or 3
function toPicture({ data, dims: [, channels, height, width] }) {
  const plane = height * width;
  const picture = new ImageData(width, height); // its bytes clip, and round as torch.round does
  for (let i = 0; i < plane; i++) {
    for (let k = 0; k < 3; k++) {
      const x = data[(channels === 1 ? 0 : k) * plane + i];
      picture.data[4 * i + k] = Math.fround(Math.fround(x * 127.5) + 127.5);
    }
    picture.data[4 * i + 3] = 255;
  }
  return picture;
}

// The inverse, x = byte / 127.5 - 1: a picture without alpha -> [1, channels, H, W]. Colour becomes grey by its luma.
function toTensor({ data, width, height }, channels) {
  const plane = height * width;
  const tensor = new Float32Array(channels * plane);
  for (let i = 0; i < plane; i++) {
    const [r, g, b] = data.subarray(4 * i, 4 * i + 3);
    const bytes = channels === 3 ? [r, g, b] : [(r * 19595 + g * 38470 + b * 7471 + 0x8000) >> 16]; // as Pillow has it
    bytes.forEach((x, k) => (tensor[k * plane + i] = Math.fround(x / 127.5) - 1));
  }
  return { data: tensor, dims: [1, channels, height, width] };
}

// grey img [1, 1, H, W] -> 1 - 2 min(1, |gradient|) by Sobel's filters / 4, as gan_engine/models/pix2pix.py:edges
function edges({ data, dims }) {
  const [, , height, width] = dims;
  const clip = (i, most) => Math.min(Math.max(i, 0), most - 1);
  const drawn = data.map((_, i) => {
    const at = (dy, dx) => data[clip(Math.floor(i / width) + dy, height) * width + clip((i % width) + dx, width)];
    const side = (d) => at(-1, d) + 2 * at(0, d) + at(1, d);
    const row = (d) => at(d, -1) + 2 * at(d, 0) + at(d, 1);
    return 1 - 2 * Math.min(1, Math.hypot(side(1) - side(-1), row(1) - row(-1)) / 4);
  });
  return { data: drawn, dims };
}

// volume [1, 1, R, R, R] -> grey img [1, 1, 2 R, 2 R], seen from `azimuth` in degrees. The function `render` of
// gan_engine/pictures/volumes.py has the same rays and light, and explains them.
function render({ data, dims: [, , side] }, azimuth) {
  const [a, e] = [(azimuth * Math.PI) / 180, (25 * Math.PI) / 180];
  const towards = [-Math.sin(a) * Math.cos(e), Math.sin(e), Math.cos(a) * Math.cos(e)];
  const right = [Math.cos(a), 0, Math.sin(a)];
  const up = [Math.sin(a) * Math.sin(e), Math.cos(e), -Math.cos(a) * Math.sin(e)];
  const length = Math.hypot(0.25, 0.8, 0.5);
  const light = [-0.25, 0.8, 0.5].map((x) => x / length);
  const inside = (voxel) => voxel.every((x) => x >= 0 && x < side);
  const occupied = (voxel) => inside(voxel) && data[(voxel[0] * side + voxel[1]) * side + voxel[2]] > 0;
  const smooth = ([x, y, z]) => {
    let sum = 0;
    for (const dx of [-1, 0, 1]) {
      for (const dy of [-1, 0, 1]) for (const dz of [-1, 0, 1]) sum += occupied([x + dx, y + dy, z + dz]);
    }
    return sum;
  };
  const shade = (voxel) => {
    const normal = [0, 1, 2].map((k) => {
      const beside = (d) => smooth(voxel.map((x, i) => x + (i === k ? d : 0)));
      return beside(-1) - beside(1);
    });
    const scale = Math.hypot(...normal) || 1;
    return 0.2 + 0.6 * Math.max(0, normal.reduce((sum, x, k) => sum + (x / scale) * light[k], 0));
  };
  const img = new Float32Array(4 * side * side).fill(1);
  img.forEach((_, i) => {
    const y = ((Math.floor(i / (2 * side)) + 0.5) / side - 1) * 1.5;
    const x = (((i % (2 * side)) + 0.5) / side - 1) * 1.5;
    for (let step = 0; step < 2 * Math.sqrt(3) * side; step++) {
      const depth = Math.sqrt(3) - step / side;
      const voxel = [0, 1, 2].map((k) => Math.floor(((depth * towards[k] + x * right[k] - y * up[k] + 1) * side) / 2));
      if (occupied(voxel)) {
        img[i] = shade(voxel) * 2 - 1;
        return;
      }
    }
  });
  return { data: img, dims: [1, 1, 2 * side, 2 * side] };
}

// ---- the network

function bytesOf(id) {
  const text = atob(element(id).textContent);
  const bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i); // Uint8Array.from takes seconds for 100 MB
  return bytes;
}

async function unzipped(id) {
  const stream = new Blob([bytesOf(id)]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

async function open() {
  const module = new Blob([await unzipped("module")], { type: "text/javascript" });
  ort = await import(URL.createObjectURL(module));
  ort.env.wasm.numThreads = 1;
  ort.env.wasm.wasmBinary = await unzipped("wasm");
  session = await ort.InferenceSession.create(bytesOf("model"), { executionProviders: ["wasm"] });
}

// {name: [numbers, sizes]} -> {data, dims} of img
async function draw(given) {
  const tensors = Object.entries(given).map(([name, [data, dims]]) => [name, new ort.Tensor("float32", data, dims)]);
  const { img } = await session.run(Object.fromEntries(tensors));
  return { data: img.data, dims: img.dims };
}

// ---- the page

function say(sentence, isError = false) {
  element("state").textContent = sentence;
  element("state").className = isError ? "error" : "";
}

function show(id, picture) {
  const canvas = element(id);
  [canvas.width, canvas.height] = [picture.width, picture.height];
  canvas.className = picture.width < 256 ? "small" : "";
  canvas.hidden = false;
  canvas.getContext("2d").putImageData(picture, 0, 0);
}

// Runs one job after the other. A job that is asked for while another runs replaces the job that waits.
let waiting = null;
let running = null;
function run(job) {
  waiting = job;
  running ??= (async () => {
    while (waiting) {
      const now = waiting;
      waiting = null;
      try {
        await now();
      } catch (error) {
        say(String(error), true);
      }
    }
    running = null;
  })();
  return running;
}

function row(label, input) {
  const line = document.createElement("label");
  const shown = document.createElement("output");
  line.append(label, input, shown);
  element("controls").append(line);
  return shown;
}

function slider(label, id, low, high, step, value, changed) {
  const input = Object.assign(document.createElement("input"), { type: "range", id, min: low, max: high, step });
  input.value = value; // after the limits, which would clip it
  const shown = row(label, input);
  const tell = () => (shown.value = input.value);
  input.addEventListener("input", () => (tell(), changed()));
  input.set = (x) => ((input.value = x), tell());
  tell();
  return input;
}

function button(label, id, pressed) {
  const made = Object.assign(document.createElement("button"), { type: "button", id, textContent: label });
  made.addEventListener("click", pressed);
  element("controls").append(made);
}

function noisePage() {
  const seed = Object.assign(document.createElement("input"), { type: "number", id: "seed", min: 0, max: 2 ** 32 - 1 });
  const kinds = document.createElement("select");
  const sliders = [];
  let truncation = null;
  let azimuth = null;
  let volume = null;
  const redraw = () => run(async () => {
    if (!seed.checkValidity() || seed.value === "") throw new Error("seed: want a whole number from 0 to 2^32 - 1");
    const begin = performance.now();
    const number = Number(seed.value);
    const moves = sliders.map((input) => Number(input.value));
    const img = await draw(noiseInputs(number, kinds.selectedIndex, Number(truncation?.value ?? 1), moves));
    const time = `${(performance.now() - begin).toFixed(0)} ms`;
    volume = about.volumes ? img : null;
    show("img", toPicture(volume ? render(volume, Number(azimuth.value)) : img));
    say(`Seed ${number}, drawn in ${time}.`);
    const kind = about.c_dim ? ` --class=${kinds.value}` : "";
    const nearer = truncation && Number(truncation.value) !== 1 ? ` --truncation=${truncation.value}` : "";
    const moved = moves.some((move) => move !== 0) ? "   # with the sliders at 0" : "";
    element("command").textContent = `${about.command} --seeds=${number}${kind}${nearer}${moved}`;
    element("command").hidden = false;
  });
  const next = (at) => ((seed.value = at), redraw());
  button("New sample", "new", () => next((Number(seed.value) + 1) % 2 ** 32));
  row("Seed", seed);
  seed.value = 0;
  seed.addEventListener("input", redraw);
  if (about.c_dim) {
    kinds.id = "class";
    for (const [name, word] of about.classes) kinds.append(new Option(name, word));
    kinds.addEventListener("input", redraw);
    row("Class", kinds);
  }
  if (about.styles) truncation = slider("Truncation", "truncation", 0, 1, 0.05, 1, redraw);
  about.directions.forEach((_, k) => {
    sliders.push(slider(`Direction ${k + 1}`, `direction${k + 1}`, -3, 3, 0.1, 0, redraw));
  });
  if (about.volumes) {
    const turn = () => run(async () => volume && show("img", toPicture(render(volume, Number(azimuth.value)))));
    azimuth = slider("Turn", "turn", -180, 180, 5, 30, turn);
  }
  button("Sliders to 0", "reset", () => (sliders.forEach((input) => input.set(0)), redraw()));
  return redraw();
}

// A picture file -> its pixels on white, as the network takes them: the largest centre of the shape of about.sides
// [H, W] at that size, or at most the middle of about.most x about.most pixels at their size
async function readPicture(file) {
  const bitmap = await createImageBitmap(file);
  const most = [bitmap.width, bitmap.height].map((x) => Math.min(x, about.most));
  const [width, height] = about.sides ? [about.sides[1], about.sides[0]] : most;
  const scale = about.sides ? Math.min(bitmap.width / width, bitmap.height / height) : 1;
  const [w, h] = [width, height].map((x) => Math.round(scale * x));
  const context = new OffscreenCanvas(width, height).getContext("2d");
  context.imageSmoothingQuality = "high";
  context.fillStyle = "white";
  context.fillRect(0, 0, width, height);
  const [x, y] = [Math.floor((bitmap.width - w) / 2), Math.floor((bitmap.height - h) / 2)];
  context.drawImage(bitmap, x, y, w, h, 0, 0, width, height);
  const cut = w < bitmap.width || h < bitmap.height;
  return { picture: context.getImageData(0, 0, width, height), note: cut ? `, of its middle ${w}x${h} pixels` : "" };
}

function picturePage() {
  const drop = Object.assign(document.createElement("label"), { className: "drop" });
  const chooser = Object.assign(document.createElement("input"), { type: "file", id: "file", accept: "image/*" });
  const extract = Object.assign(document.createElement("input"), { type: "checkbox", id: "extract", checked: true });
  let file = null;
  const redraw = () => run(async () => {
    if (!file) return;
    const begin = performance.now();
    const { picture, note } = await readPicture(file).catch(() => {
      throw new Error(`${file.name}: not a picture that this browser can read`);
    });
    let source = toTensor(picture, about.channels);
    if (about.edges && extract.checked) source = edges(source);
    show("source", toPicture(source));
    say("Drawing.");
    await new Promise((resolve) => setTimeout(resolve)); // the browser shows the source first
    show("img", toPicture(await draw({ source: [source.data, source.dims] })));
    say(`${file.name}${note}: drawn in ${(performance.now() - begin).toFixed(0)} ms.`);
  });
  const take = (files) => {
    if (files.length) [file] = files;
    return redraw();
  };
  chooser.addEventListener("change", () => take(chooser.files));
  drop.append("Drop a picture here, or choose one: ", chooser);
  for (const name of ["dragenter", "dragover"]) {
    drop.addEventListener(name, (event) => (event.preventDefault(), drop.classList.add("over")));
  }
  drop.addEventListener("dragleave", () => drop.classList.remove("over"));
  drop.addEventListener("drop", (event) => {
    event.preventDefault();
    drop.classList.remove("over");
    take(event.dataTransfer.files);
  });
  element("controls").append(drop);
  if (about.edges) {
    row("Take the edges", extract);
    extract.addEventListener("change", redraw);
  }
  element("command").textContent = about.command;
  element("command").hidden = false;
  say("Ready. Pictures stay in this page.");
}

async function start() {
  try {
    await open();
    await (about.z_dim ? noisePage() : picturePage());
  } catch (error) {
    say(`This browser cannot draw: ${error}`, true);
    throw error;
  }
}

const ready = start();
