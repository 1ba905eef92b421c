/* The playground: the shipped model in the page. Pairs, model and onnxruntime-web lie beside this file as scripts that
   hand over their content, because a page opened from disk may load scripts, but not fetch files. */
"use strict";
(() => {
  const root = document.getElementById("playground");
  const folder = new URL(".", document.currentScript.src);
  const status = root.querySelector("[role=status]");
  const HIDDEN = "rgb(158 158 158)"; // MASK_GREY of the figures
  const TOP = { error: 2, attention: 4 }; // ends of the colour scales: squared deviations, times an even share
  const PANES = [
    ["painted", "What the encoder sees"],
    ["model", "Reconstruction"],
    ["interpolation", "Interpolation"],
    ["truth", "What was measured"],
    ["attention", "Attention"],
  ];
  const waiting = {};
  const playground = (window.playground = { put: (name, text) => waiting[name](text) });
  let facts, session, pair, hidden, asked, cursor, seed = 0, wanted = 0, result = null, busy = false, again = false;

  // ---- what lies beside this file -----------------------------------------------------------------------------------
  function load(name) {
    return new Promise((resolve, reject) => {
      waiting[name] = resolve;
      const script = document.createElement("script");
      script.src = new URL(`${name}.js`, folder);
      script.onerror = () => reject(new Error(`${name}.js is not beside the page`));
      document.head.append(script);
    }).then(unpack);
  }

  function unpack(text) {
    const binary = Uint8Array.fromBase64 ? "" : atob(text);
    const packed = Uint8Array.fromBase64?.(text) ?? new Uint8Array(binary.length);
    for (let i = 0; i < binary.length; i++) packed[i] = binary.charCodeAt(i);
    const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
    return new Response(stream).arrayBuffer().then((buffer) => new Uint8Array(buffer));
  }

  const address = (bytes) => URL.createObjectURL(new Blob([bytes], { type: "text/javascript" }));

  async function openModel() {
    const [runtime, glue, wasm, model] = await Promise.all(["runtime", "glue", "wasm", "model"].map(load));
    await new Promise((resolve, reject) => {
      const script = document.createElement("script");
      Object.assign(script, { src: address(runtime), onload: resolve, onerror: () => reject(new Error("no runtime")) });
      document.head.append(script);
    });
    ort.env.wasm.numThreads = 1; // more need a server that sends special headers
    ort.env.wasm.wasmPaths = { mjs: address(glue) };
    ort.env.wasm.wasmBinary = wasm.buffer;
    session = await ort.InferenceSession.create(model, { executionProviders: ["wasm"] });
  }

  const loadPair = (number) => load(`pair${number}`).then(unpackPair);

  /** Normalised patches of a pair: sensor -> Float32Array (N * C * P * P), as the model takes them. */
  function unpackPair(bytes) {
    const stored = new Int16Array(bytes.buffer), images = {};
    let start = 0;
    for (const { name, channels } of facts.sensors) {
      const length = facts.grid ** 2 * channels * facts.side ** 2;
      images[name] = Float32Array.from(stored.subarray(start, start + length), (value) => value * facts.step);
      start += length;
    }
    return images;
  }

  // ---- what is computed ---------------------------------------------------------------------------------------------
  const visible = (mask) => [...mask.keys()].filter((i) => !mask[i]);

  /** Reconstruction, interpolation and attention of a pair under masks: sensor -> Uint8Array (N), 1 where hidden. */
  async function compute(images, masks) {
    const feeds = {}, size = facts.side ** 2, answer = {};
    for (const { name, channels } of facts.sensors) {
      const index = visible(masks[name]), length = channels * size;
      const pixels = new Float32Array(index.length * length);
      index.forEach((patch, i) => pixels.set(images[name].subarray(patch * length, (patch + 1) * length), i * length));
      feeds[`pixels_${name}`] = new ort.Tensor("float32", pixels, [1, index.length, length]);
      feeds[`index_${name}`] = new ort.Tensor("int64", BigInt64Array.from(index, BigInt), [1, index.length]);
    }
    const outputs = await session.run(feeds);
    for (const sensor of facts.sensors) {
      const { name } = sensor, truth = images[name], mask = masks[name];
      const model = outputs[`patches_${name}`].data, interpolation = interpolate(truth, mask, sensor);
      const error = { model: meanError(model, truth, mask), interpolation: meanError(interpolation, truth, mask) };
      answer[name] = { model, interpolation, error, attention: outputs[`attention_${name}`].data };
    }
    return answer;
  }

  /** Hidden patches from visible ones: a Gaussian over patches' means, then the bilinear surface through them. */
  function interpolate(patches, mask, { channels, width }) {
    const { grid, side } = facts, size = side * side, seen = visible(mask), filled = new Float64Array(grid * grid * channels);
    const mean = (patch, channel) => {
      let sum = 0;
      for (let i = 0, at = (patch * channels + channel) * size; i < size; i++) sum += patches[at + i];
      return sum / size;
    };
    for (const patch of seen) for (let c = 0; c < channels; c++) filled[patch * channels + c] = mean(patch, c);
    for (let patch = 0; patch < grid * grid; patch++) {
      if (!mask[patch]) continue;
      const far = seen.map((i) => ((i % grid) - (patch % grid)) ** 2 + (Math.floor(i / grid) - Math.floor(patch / grid)) ** 2);
      const least = Math.min(...far), weights = far.map((d) => Math.exp((least - d) / (2 * width * width)));
      const total = weights.reduce((a, b) => a + b, 0);
      for (let c = 0; c < channels; c++)
        filled[patch * channels + c] = seen.reduce((sum, i, k) => sum + weights[k] * filled[i * channels + c], 0) / total;
    }
    const surface = new Float32Array(patches.length), last = grid - 1;
    const place = (patch, pixel) => Math.min(Math.max(patch + (pixel + 0.5) / side - 0.5, 0), last);
    for (let patch = 0, at = 0; patch < grid * grid; patch++)
      for (let c = 0; c < channels; c++)
        for (let pixel = 0; pixel < size; pixel++, at++) {
          const y = place(Math.floor(patch / grid), Math.floor(pixel / side)), x = place(patch % grid, pixel % side);
          const top = Math.floor(y), left = Math.floor(x), down = Math.min(top + 1, last), right = Math.min(left + 1, last);
          const value = (row, column) => filled[(row * grid + column) * channels + c];
          const upper = value(top, left) * (left + 1 - x) + value(top, right) * (x - left);
          const lower = value(down, left) * (left + 1 - x) + value(down, right) * (x - left);
          surface[at] = upper * (top + 1 - y) + lower * (y - top);
        }
    return surface;
  }

  /** Mean squared error over hidden patches; NaN where none is hidden. */
  function meanError(predicted, truth, mask) {
    const length = truth.length / mask.length;
    let sum = 0, count = 0;
    for (let patch = 0; patch < mask.length; patch++) {
      if (!mask[patch]) continue;
      for (let i = patch * length; i < (patch + 1) * length; i++) sum += (predicted[i] - truth[i]) ** 2;
      count += length;
    }
    return sum / count;
  }

  /** Where the patch asked of sensor `name` looks among the visible ones of the other: shares, by head or their mean. */
  function shares(name) {
    const rows = visible(hidden[name]), columns = visible(hidden[otherOf(name)]), row = rows.indexOf(asked[name]);
    if (row < 0 || !result) return null;
    const choice = root.querySelector("[name=head]").value, heads = choice === "mean" ? [...Array(facts.heads).keys()] : [+choice];
    const map = result[name].attention, found = new Map();
    columns.forEach((patch, k) => {
      const sum = heads.reduce((s, head) => s + map[(head * rows.length + row) * columns.length + k], 0);
      found.set(patch, sum / heads.length);
    });
    return found;
  }

  const otherOf = (name) => facts.sensors.find((sensor) => sensor.name !== name).name;

  /** Small and repeatable random numbers (mulberry32). */
  function random(state) {
    return () => {
      state = (state + 0x6d2b79f5) | 0;
      let t = Math.imul(state ^ (state >>> 15), 1 | state);
      t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
      return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
    };
  }

  function draw(share, same) {
    const next = random(seed), count = facts.grid ** 2, kept = Math.max(1, count - Math.round(count * share));
    for (const [i, { name }] of facts.sensors.entries()) {
      const order = [...Array(count).keys()].map((patch) => [next(), patch]).sort((a, b) => a[0] - b[0]);
      hidden[name] = new Uint8Array(count).fill(1);
      order.slice(0, kept).forEach(([, patch]) => (hidden[name][patch] = 0));
      if (same && i) hidden[name] = hidden[facts.sensors[0].name].slice();
    }
  }

  // ---- what is drawn ------------------------------------------------------------------------------------------------
  const canvasOf = (name, pane) => root.querySelector(`canvas[data-sensor=${name}][data-pane=${pane}]`);
  const captionOf = (name, pane) => canvasOf(name, pane).parentElement.querySelector("figcaption");
  const boxOf = (patch) => [(patch % facts.grid) * facts.side, Math.floor(patch / facts.grid) * facts.side];

  /** Draw a picture of `paint(patch, pixel)` -> [r, g, b] in 0..1, four times as large; what `over` draws is sharper. */
  function show(name, pane, paint, over = () => {}) {
    const { grid, side } = facts, wide = grid * side, small = document.createElement("canvas");
    small.width = small.height = wide;
    const pen = small.getContext("2d"), picture = pen.createImageData(wide, wide);
    for (let patch = 0; patch < grid * grid; patch++) {
      const [left, top] = boxOf(patch);
      for (let pixel = 0; pixel < side * side; pixel++) {
        const at = 4 * ((top + Math.floor(pixel / side)) * wide + left + (pixel % side));
        paint(patch, pixel).forEach((value, i) => (picture.data[at + i] = Math.round(255 * value)));
        picture.data[at + 3] = 255;
      }
    }
    pen.putImageData(picture, 0, 0);
    const canvas = canvasOf(name, pane), large = canvas.getContext("2d");
    large.setTransform(canvas.width / wide, 0, 0, canvas.width / wide, 0, 0);
    large.imageSmoothingEnabled = false;
    large.drawImage(small, 0, 0);
    over(large);
  }

  /** Patches as colours by the composite that is chosen for this sensor. */
  function colours(sensor, patches) {
    const chosen = root.querySelector(`select[data-sensor=${sensor.name}]`).value;
    const recipe = sensor.composites[chosen === "error" ? 0 : +chosen], size = facts.side ** 2;
    return (patch, pixel) =>
      recipe.layers.map(({ offset, shares }) => {
        const at = patch * sensor.channels * size + pixel;
        const value = shares.reduce((sum, [channel, share]) => sum + share * patches[at + channel * size], offset);
        return Math.min(Math.max(value, 0), 1) ** (1 / recipe.gamma);
      });
  }

  function mapped(map, value) {
    const at = 3 * Math.round(255 * Math.min(Math.max(value / TOP[map], 0), 1));
    return facts.maps[map].slice(at, at + 3).map((part) => part / 255);
  }

  /** Squared error, mean of the bands, of what was hidden. */
  const errors = (sensor, predicted, truth) => (patch, pixel) => {
    const size = facts.side ** 2, at = patch * sensor.channels * size + pixel;
    let sum = 0;
    for (let c = 0; c < sensor.channels; c++) sum += (predicted[at + c * size] - truth[at + c * size]) ** 2;
    return mapped("error", sum / sensor.channels);
  };

  const fill = (pen, patch) => pen.fillRect(...boxOf(patch), facts.side, facts.side);

  function frame(pen, patch, ink, dashes = []) {
    const [left, top] = boxOf(patch);
    for (const [colour, width] of [["black", 2.4], [ink, 1.2]]) {
      Object.assign(pen, { strokeStyle: colour, lineWidth: width });
      pen.setLineDash(dashes);
      pen.strokeRect(left, top, facts.side, facts.side);
    }
  }

  function hatch(pen, patch) {
    const [left, top] = boxOf(patch);
    fill(pen, patch);
    Object.assign(pen, { strokeStyle: "white", lineWidth: 0.5 });
    pen.setLineDash([]);
    pen.beginPath();
    pen.moveTo(left, top + facts.side);
    pen.lineTo(left + facts.side, top);
    pen.stroke();
  }

  function drawPainted(sensor) {
    const { name } = sensor;
    show(name, "painted", colours(sensor, pair[name]), (pen) => {
      pen.fillStyle = HIDDEN;
      hidden[name].forEach((masked, patch) => masked && fill(pen, patch));
      frame(pen, asked[name], "white");
      if (document.activeElement === canvasOf(name, "painted")) frame(pen, cursor[name], "yellow", [2, 1]);
    });
    if (!result) show(name, "truth", colours(sensor, pair[name]));
    const count = hidden[name].reduce((a, b) => a + b, 0);
    captionOf(name, "painted").textContent = `What the encoder sees: ${hidden[name].length - count} of ${hidden[name].length} patches`;
  }

  function drawAnswer(sensor) {
    const { name } = sensor, truth = pair[name], { error } = result[name];
    const inErrors = root.querySelector(`select[data-sensor=${name}]`).value === "error";
    for (const pane of ["model", "interpolation"]) {
      const patches = result[name][pane].map((value, i) => (hidden[name][Math.floor(i / (truth.length / hidden[name].length))] ? value : truth[i]));
      const hatched = (pen) => {
        pen.fillStyle = HIDDEN;
        visible(hidden[name]).forEach((patch) => hatch(pen, patch));
      };
      if (inErrors) show(name, pane, errors(sensor, patches, truth), hatched);
      else show(name, pane, colours(sensor, patches));
      const title = PANES.find(([key]) => key === pane)[1];
      captionOf(name, pane).textContent = Number.isNaN(error[pane]) ? title : `${title}: error ${error[pane].toFixed(3)}`;
    }
    show(name, "truth", colours(sensor, truth));
    root.querySelector(`.error[data-sensor=${name}]`).textContent = verdict(sensor);
    drawAttention(sensor);
  }

  /** In this sensor: where the patch asked of the other one looks. */
  function drawAttention(sensor) {
    const { name } = sensor, other = facts.sensors.find((each) => each !== sensor), found = shares(other.name);
    const picture = colours(sensor, pair[name]), even = 1 / (found?.size ?? 1);
    const paint = (patch, pixel) => {
      if (!found?.has(patch)) return [0.62, 0.62, 0.62];
      const light = picture(patch, pixel), colour = mapped("attention", found.get(patch) / even);
      return colour.map((part, i) => 0.75 * part + 0.25 * light[i]);
    };
    let words = `${other.title}'s framed patch is hidden and asks nothing`;
    let most = null;
    if (found) {
      for (const [patch, share] of found) if (most === null || share > found.get(most)) most = patch;
      words = `Where ${other.title}'s ${place(asked[other.name])} looks: most at ${place(most)}, ${(found.get(most) / even).toFixed(1)} times an even share`;
    }
    show(name, "attention", paint, (pen) => most !== null && frame(pen, most, "white"));
    captionOf(name, "attention").textContent = words;
    canvasOf(name, "attention").setAttribute("aria-label", words);
  }

  const place = (patch) => `row ${Math.floor(patch / facts.grid)}, column ${patch % facts.grid}`;

  function verdict({ name }) {
    const { model, interpolation } = result[name].error, count = hidden[name].reduce((a, b) => a + b, 0);
    if (!count) return "Nothing is hidden, so there is nothing to reconstruct.";
    return `Over ${count} hidden patches the model's error is ${model.toFixed(3)}, interpolation's ${interpolation.toFixed(3)}.`;
  }

  function brief({ name, title }) {
    const { model, interpolation } = result[name].error;
    const way = model < interpolation ? "below" : "above", share = Math.abs(100 * (1 - model / interpolation)).toFixed(0);
    return Number.isNaN(model) ? "" : `${title}: error ${share} % ${way} interpolation's.`;
  }

  // ---- what happens -------------------------------------------------------------------------------------------------
  /** Draw the masks at once, then compute; what is asked for meanwhile is computed once, afterwards. */
  async function refresh() {
    facts.sensors.forEach(drawPainted);
    again = true;
    if (busy || !session) return;
    busy = true;
    try {
      while (again) {
        again = false;
        const images = pair, masks = Object.fromEntries(Object.entries(hidden).map(([name, mask]) => [name, mask.slice()]));
        const answer = await compute(images, masks);
        await new Promise((resolve) => setTimeout(resolve)); // let the page take what was clicked meanwhile
        const same = facts.sensors.every(({ name }) => masks[name].every((value, i) => value === hidden[name][i]));
        if (images !== pair || !same) again = true;
        if (images === pair && same) {
          result = answer;
          facts.sensors.forEach(drawAnswer);
          later(facts.sensors.map(brief).join(" "));
        }
      }
    } catch (error) {
      say(`The model stopped: ${error.message}. Load the page again.`);
    } finally {
      busy = false;
    }
  }

  const say = (text) => (status.textContent = text);
  let timer = 0;
  function later(text) {
    clearTimeout(timer);
    timer = setTimeout(() => say(text), 400); // once a stroke of the brush, not for each patch of it
  }

  /** Hide (1) or show (0) a patch; the last visible one stays. */
  function paint(name, patch, value) {
    if (hidden[name][patch] === value) return;
    if (value && visible(hidden[name]).length === 1) return later("The last visible patch of a sensor stays: the model wants one of each.");
    hidden[name][patch] = value;
    refresh();
  }

  function ask(name, patch) {
    asked[name] = patch;
    facts.sensors.forEach(drawPainted);
    if (result) drawAttention(facts.sensors.find((sensor) => sensor.name !== name));
    later(captionOf(otherOf(name), "attention").textContent);
  }

  function listen(canvas) {
    const name = canvas.dataset.sensor, { grid } = facts;
    let value = null;
    const under = (event) => {
      const box = canvas.getBoundingClientRect();
      const [column, row] = [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height].map((part) => Math.floor(part * grid));
      return row >= 0 && row < grid && column >= 0 && column < grid ? row * grid + column : null;
    };
    const asking = (event) => event.shiftKey || root.querySelector("[name=tool]:checked").value === "ask";
    canvas.addEventListener("pointerdown", (event) => {
      const patch = under(event);
      if (patch === null || event.button) return;
      cursor[name] = patch;
      if (asking(event)) return ask(name, patch);
      canvas.setPointerCapture(event.pointerId);
      value = 1 - hidden[name][patch];
      paint(name, patch, value);
    });
    canvas.addEventListener("pointermove", (event) => {
      if (value === null) return;
      for (const each of event.getCoalescedEvents?.() ?? [event]) {
        const patch = under(each);
        if (patch !== null) paint(name, patch, value);
      }
    });
    for (const end of ["pointerup", "pointercancel"]) canvas.addEventListener(end, () => (value = null));
    canvas.addEventListener("keydown", (event) => {
      const [row, column] = [Math.floor(cursor[name] / grid), cursor[name] % grid];
      const step = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
      if (step) {
        const inside = (value) => Math.min(Math.max(value, 0), grid - 1);
        cursor[name] = inside(row + step[0]) * grid + inside(column + step[1]);
        facts.sensors.forEach(drawPainted);
        later(`${place(cursor[name])}: ${hidden[name][cursor[name]] ? "hidden" : "visible"}`);
      } else if (event.key === " ") paint(name, cursor[name], 1 - hidden[name][cursor[name]]);
      else if (event.key === "Enter") ask(name, cursor[name]);
      else return;
      event.preventDefault();
    });
    for (const change of ["focus", "blur"]) canvas.addEventListener(change, () => facts.sensors.forEach(drawPainted));
  }

  const option = (value, text) => `<option value="${value}">${text}</option>`;
  const figure = (sensor, [pane, title]) => `<figure class="${pane}">
    <canvas width="480" height="480" data-sensor="${sensor.name}" data-pane="${pane}" aria-label="${sensor.title}: ${title}"
      ${pane === "painted" ? 'tabindex="0" role="application" aria-describedby="playground-keys"' : 'role="img"'}></canvas>
    <figcaption>${title}</figcaption></figure>`;
  const row = (sensor) => `<section aria-labelledby="playground-${sensor.name}">
    <h2 id="playground-${sensor.name}" style="border-color: ${sensor.colour}">${sensor.title}</h2>
    <label>colours <select data-sensor="${sensor.name}">
      ${sensor.composites.map(({ title }, i) => option(i, title)).join("")}${option("error", "squared error")}</select></label>
    <button type="button" data-alone="${sensor.name}">Hide all but one patch</button>
    <div class="panes">${PANES.map((pane) => figure(sensor, pane)).join("")}</div>
    <p class="error" data-sensor="${sensor.name}"></p></section>`;
  const page = () => `<div class="controls">
    <label>pair <select name="pair">${facts.pairs.map(({ title }, i) => option(i, title)).join("")}</select></label>
    <fieldset><legend>a click</legend>
      <label><input type="radio" name="tool" value="paint" checked> hides or shows, drag to paint</label>
      <label><input type="radio" name="tool" value="ask"> asks where a patch looks</label></fieldset>
    <label>hidden <input type="range" name="share" min="0" max="99" value="75"> <output>75</output> %</label>
    <label><input type="checkbox" name="same"> the same in both</label>
    <button type="button" name="draw">Draw anew</button>
    <label>head <select name="head">${option("mean", "mean")}${[...Array(facts.heads).keys()].map((i) => option(i, i)).join("")}</select></label>
    </div>${facts.sensors.map(row).join("")}
    <p id="playground-keys">By key, in a picture that has the focus: arrows move, the space bar hides or shows, Enter asks.</p>`;

  function build() {
    const live = root.querySelector(".live");
    live.innerHTML = page();
    const control = (name) => live.querySelector(`[name=${name}]`);
    const redraw = () => {
      live.querySelector("output").textContent = control("share").value;
      draw(control("share").value / 100, control("same").checked);
      return refresh();
    };
    control("share").addEventListener("input", redraw);
    control("same").addEventListener("change", redraw);
    control("draw").addEventListener("click", () => redraw(seed++));
    control("head").addEventListener("change", () => result && facts.sensors.forEach(drawAttention));
    control("pair").addEventListener("change", (event) => open(+event.target.value));
    live.querySelectorAll("canvas[data-pane=painted]").forEach(listen);
    live.querySelectorAll("[name=tool]").forEach((tool) => tool.addEventListener("change", () => root.classList.toggle("asks", tool.value === "ask")));
    live.querySelectorAll("select[data-sensor]").forEach((select) => select.addEventListener("change", refresh));
    live.querySelectorAll("[data-alone]").forEach((button) => button.addEventListener("click", () => {
      hidden[button.dataset.alone].fill(1)[asked[button.dataset.alone]] = 0;
      refresh();
    }));
  }

  /** Show another pair; the one asked for last stays, whichever comes first. */
  async function open(number) {
    wanted = number;
    try {
      const images = await loadPair(number);
      if (number !== wanted) return;
      pair = images;
      result = null;
      await refresh();
    } catch (error) {
      say(`This pair could not be read: ${error.message}.`);
    }
  }

  /** The playground in place of the still picture, or the other way round. */
  function lively(live) {
    root.querySelector(".live").hidden = !live;
    root.parentElement.querySelectorAll("img").forEach((still) => ((still.closest("a") ?? still).hidden = live));
  }

  async function start() {
    if (typeof WebAssembly === "undefined" || typeof DecompressionStream === "undefined")
      return say("This picture stands still: your browser has no WebAssembly, in which the playground computes.");
    say("The model is being loaded (12 MB).");
    try {
      const [described, first] = ["facts", "pair0"].map(load), opened = openModel();
      opened.catch(() => {}); // awaited below
      facts = JSON.parse(new TextDecoder().decode(await described));
      const middle = Math.floor(facts.grid ** 2 / 2);
      hidden = Object.fromEntries(facts.sensors.map(({ name }) => [name, new Uint8Array(facts.grid ** 2)]));
      [asked, cursor] = [0, 1].map(() => Object.fromEntries(facts.sensors.map(({ name }) => [name, middle])));
      draw(0.75, false);
      for (const { name } of facts.sensors) asked[name] = visible(hidden[name]).reduce((a, b) => (Math.abs(b - middle) < Math.abs(a - middle) ? b : a));
      build();
      pair = unpackPair(await first);
      lively(true);
      await refresh(); // what needs no model
      playground.firstPicture = performance.now();
      await opened;
      await refresh();
      playground.firstReconstruction = performance.now();
    } catch (error) {
      lively(false);
      say(`This picture stands still: the playground could not start (${error.message}).`);
    }
  }

  Object.assign(playground, { compute, loadPair, state: () => ({ facts, hidden, asked, result, pair }) });
  playground.ready = start();
})();
