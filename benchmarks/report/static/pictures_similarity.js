// Similarity maps: the cosine of one cell of a picture with all its cells, for two rows of the report side by side.
(() => {
  const root = document.getElementById("similarity");
  const data = JSON.parse(document.getElementById("similarity-data").textContent);
  const part = (name) => root.querySelector(`[data-part="${name}"]`);
  const said = document.getElementById("similarity-said");
  const SIDES = ["left", "right"].slice(0, Object.keys(data.titles).length); // one row has nothing beside it
  const STOPS = [[68, 1, 84], [65, 68, 135], [42, 120, 142], [34, 168, 132], [122, 209, 81], [253, 231, 37]]; // viridis
  const pictures = data.groups.flatMap((group, g) =>
    group.pictures.map((picture, i) => ({ ...picture, image: root.querySelector(`[data-picture="${g}-${i}"]`) })));

  let picture;
  let place = { x: 0.5, y: 0.5 }; // of the chosen cell, in shares of the sides: maps may have different numbers of cells

  const bytes = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const clamp = (value, low, high) => Math.max(low, Math.min(high, value));

  // Decode the map of a row once.
  const mapOf = (label) => {
    const map = picture.maps[label];
    if (!map) return null;
    if (!map.numbers) {
      map.numbers = new Int8Array(bytes(map.cells).buffer);
      map.labels = bytes(map.truth);
      map.size = map.numbers.length / (map.width * map.height);
    }
    return map;
  };

  const cellOf = (map) => ({
    column: clamp(Math.floor(place.x * map.width), 0, map.width - 1),
    row: clamp(Math.floor(place.y * map.height), 0, map.height - 1),
  });

  const choose = (map, column, row) => {
    place = { x: (clamp(column, 0, map.width - 1) + 0.5) / map.width, y: (clamp(row, 0, map.height - 1) + 0.5) / map.height };
    show();
  };

  const cosines = (map, chosen) => {
    const { numbers, size } = map;
    const found = new Float32Array(map.width * map.height);
    for (let cell = 0; cell < found.length; cell++) {
      let sum = 0;
      for (let i = 0; i < size; i++) sum += numbers[cell * size + i] * numbers[chosen * size + i];
      found[cell] = clamp(sum * map.scale, -1, 1);
    }
    found[chosen] = 1; // kept numbers give all pairs but this one
    return found;
  };

  const colour = (value) => {
    const at = clamp(value, 0, 1) * (STOPS.length - 1);
    const low = Math.min(Math.floor(at), STOPS.length - 2);
    return STOPS[low].map((start, i) => Math.round(start + (at - low) * (STOPS[low + 1][i] - start)));
  };

  const draw = (canvas, map, values, cell, low, high) => {
    const scale = Math.ceil(480 / picture.width);
    canvas.width = picture.width * scale;
    canvas.height = picture.height * scale;
    const pen = canvas.getContext("2d");
    const [w, h] = [canvas.width / map.width, canvas.height / map.height];
    pen.filter = "grayscale(1)";
    pen.drawImage(picture.image, 0, 0, canvas.width, canvas.height);
    pen.filter = "none";
    pen.globalAlpha = 0.7;
    values.forEach((value, i) => {
      pen.fillStyle = `rgb(${colour((value - low) / (high - low || 1))})`;
      const [left, top] = [Math.round((i % map.width) * w), Math.round(Math.floor(i / map.width) * h)];
      pen.fillRect(left, top, Math.round(((i % map.width) + 1) * w) - left, Math.round((Math.floor(i / map.width) + 1) * h) - top);
    });
    pen.globalAlpha = 1;
    for (const [style, width] of [["#000", 6], ["#fff", 3]]) {
      pen.strokeStyle = style;
      pen.lineWidth = width;
      pen.strokeRect(cell.column * w, cell.row * h, w, h);
    }
  };

  const written = (value) => value.toFixed(2).replace("-", "−");
  const mean = (values) => (values.length ? written(values.reduce((a, b) => a + b, 0) / values.length) : "none");

  // Say in words what the map shows: the most similar cell, and cells of the same class against all others.
  const sentence = (title, map, values, chosen) => {
    const others = [...values.keys()].filter((cell) => cell !== chosen);
    const best = others.reduce((a, b) => (values[b] > values[a] ? b : a), others[0] ?? chosen);
    const at = `row ${Math.floor(best / map.width) + 1}, column ${(best % map.width) + 1} (${written(values[best])})`;
    const kind = map.labels[chosen];
    const name = picture.classes[kind];
    if (name === undefined) return `${title}: most similar is ${at}.`;
    const same = others.filter((cell) => map.labels[cell] === kind).map((cell) => values[cell]);
    const rest = others.filter((cell) => map.labels[cell] !== kind).map((cell) => values[cell]);
    return `${title}: most similar is ${at}; mean of the other cells of ${name} ${mean(same)}, of all other cells ${mean(rest)}.`;
  };

  const show = () => {
    const words = [];
    for (const side of SIDES) {
      const label = part(side).value;
      const canvas = part(`${side}-map`);
      const map = mapOf(label);
      part(`${side}-title`).textContent = data.titles[label];
      canvas.closest("figure").hidden = !map;
      if (!map) {
        words.push(`${data.titles[label]}: this picture was not kept.`);
        continue;
      }
      const cell = cellOf(map);
      const chosen = cell.row * map.width + cell.column;
      const values = cosines(map, chosen);
      const own = part("range").value === "own";
      const [low, high] = own ? [Math.min(...values), Math.max(...values)] : [0, 1];
      draw(canvas, map, values, cell, low, high);
      part(`${side}-low`).textContent = written(low);
      part(`${side}-high`).textContent = written(high);
      canvas.setAttribute("aria-label", `${data.titles[label]}, picture ${picture.name}, ${map.width} × ${map.height} cells`);
      if (!words.length) {
        const name = picture.classes[map.labels[chosen]];
        words.push(`Row ${cell.row + 1} of ${map.height}, column ${cell.column + 1} of ${map.width}${name === undefined ? "" : ` (${name})`}.`);
      }
      words.push(sentence(data.titles[label], map, values, chosen));
    }
    said.textContent = words.join(" ");
  };

  // Start at the middle of the cells of the rarest class, which is an object more often than not.
  const begin = () => {
    const map = mapOf(part("left").value) || mapOf(Object.keys(picture.maps)[0]);
    const cells = new Map();
    map.labels.forEach((kind, cell) => {
      if (picture.classes[kind] !== undefined) cells.set(kind, [...(cells.get(kind) || []), cell]);
    });
    const rare = [...cells.values()].sort((a, b) => a.length - b.length)[0] || [0];
    const [x, y] = [rare.map((cell) => cell % map.width), rare.map((cell) => Math.floor(cell / map.width))];
    const far = (i) => (x[i] - x.reduce((a, b) => a + b) / x.length) ** 2 + (y[i] - y.reduce((a, b) => a + b) / y.length) ** 2;
    const middle = rare.map((_, i) => i).reduce((a, b) => (far(b) < far(a) ? b : a));
    choose(map, x[middle], y[middle]);
  };

  const MOVES = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1], Home: [-999, 0], End: [999, 0], PageUp: [0, -999], PageDown: [0, 999] };
  const option = (value, text) => Object.assign(document.createElement("option"), { value, textContent: text });

  let number = 0; // in `pictures`; names are no good for that, as pictures of mini worlds may share one
  for (const group of data.groups) {
    const list = Object.assign(document.createElement("optgroup"), { label: group.title });
    list.append(...group.pictures.map((one) => option(number++, one.name)));
    part("picture").append(list);
  }
  for (const side of SIDES) for (const [label, title] of Object.entries(data.titles)) part(side).append(option(label, title));
  SIDES.forEach((side, i) => (part(side).value = data.start[i]));

  let turns = 0;
  const turnTo = async (start) => {
    const turn = ++turns;
    picture = pictures[part("picture").value];
    await picture.image.decode();
    if (turn === turns) start(); // else another one was chosen meanwhile
  };
  part("picture").addEventListener("change", () => turnTo(begin));
  document.addEventListener("keep", ({ detail }) => {
    const values = ["left", "right", "range"].map((name) => [name, part(name).value]);
    detail.similarity = { picture: picture.image.src, values, place };
  });
  document.addEventListener("restore", ({ detail: { similarity: kept } }) => {
    const again = kept ? pictures.findIndex((one) => one.image.src === kept.picture) : -1;
    if (again < 0) return;
    part("picture").value = again;
    for (const [name, value] of kept.values)
      if ([...part(name).options].some((one) => one.value === value)) part(name).value = value;
    turnTo(() => {
      place = kept.place;
      show();
    });
  });
  for (const name of ["left", "right", "range"]) part(name).addEventListener("change", show);
  for (const side of SIDES) {
    const canvas = part(`${side}-map`);
    canvas.addEventListener("click", (event) => {
      const [map, box] = [mapOf(part(side).value), canvas.getBoundingClientRect()];
      choose(map, Math.floor(((event.clientX - box.left) / box.width) * map.width), Math.floor(((event.clientY - box.top) / box.height) * map.height));
    });
    canvas.addEventListener("keydown", (event) => {
      const move = MOVES[event.key];
      if (!move || event.ctrlKey || event.metaKey || event.altKey) return;
      event.preventDefault();
      const map = mapOf(part(side).value);
      const cell = cellOf(map);
      choose(map, cell.column + move[0], cell.row + move[1]);
    });
  }
  for (const hidden of root.querySelectorAll("[hidden]")) hidden.hidden = false;
  for (const name of ["right", "right-map"]) part(name).closest("label, figure").hidden = SIDES.length === 1;
  part("picture").dispatchEvent(new Event("change"));
})();
