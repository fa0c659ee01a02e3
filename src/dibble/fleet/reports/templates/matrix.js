
"use strict";
// Filters, sorts and opens the cells of a run. What is shown stands in the fragment of the address (STATE), so that a
// link shows the same. Text of builds goes through textContent alone.
(() => {
  const DATA = JSON.parse(document.getElementById("data").textContent);
  const { cells: CELLS, runs: RUNS, words: WORDS } = DATA;
  const RANK = ["failed", "allowed", "skipped", "unsupported", "running", "waiting", "flaky", "success"];
  const FILTERS = ["q", "host", "target", "outcome", "class", "change", "note"];
  const KEYS = [...FILTERS, "sort", "view", "cell"];
  const GROUPS = {
    "not-success": ["not a success", (cell) => cell.mark !== "success" && cell.mark !== "flaky"],
    "not-run": ["not run", (cell) => ["skipped", "unsupported", "running", "waiting"].includes(cell.mark)],
    success: ["success", (cell) => cell.mark === "success" || cell.mark === "flaky"],
  };
  const NARROW = window.matchMedia("(max-width: 44rem)");
  const find = (id) => document.getElementById(id);
  const form = find("filters");
  const dialog = find("details");
  const byName = new Map(CELLS.map((cell, number) => [cell.name, number]));
  const links = [...document.querySelectorAll("a.cell")];
  const rows = [...document.querySelectorAll("#matrix tbody tr")];
  let logs = null;
  let state = {};
  let shown = [];
  let opener = null;

  for (const cell of CELLS) {
    const workers = cell.attempts.flatMap((attempt) => [attempt.worker, attempt.reason, attempt.hint]);
    const parts = [cell.name, WORDS[cell.mark], cell.class, cell.reason, cell.boot, ...Object.values(cell.axes), ...workers];
    cell.text = parts.join("\n").toLowerCase();
  }

  // Elements: el("td", { class: "x" }, child, "text", …); null children are left out.
  function el(name, attributes, ...children) {
    const svg = ["svg", "rect", "line", "use", "title"].includes(name);
    const node = svg ? document.createElementNS("http://www.w3.org/2000/svg", name) : document.createElement(name);
    for (const [key, value] of Object.entries(attributes || {})) {
      if (typeof value === "function") node.addEventListener(key, value);
      else if (value !== null && value !== undefined && value !== false) node.setAttribute(key, value === true ? "" : value);
    }
    node.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== ""));
    return node;
  }

  // The same words as dibble/wording.py.
  function seconds(value) {
    if (value < 99.95) return `${value.toFixed(1)} s`;
    const whole = Math.round(value);
    const two = (number) => String(number).padStart(2, "0");
    if (whole < 3600) return `${Math.floor(whole / 60)} min ${two(whole % 60)} s`;
    return `${Math.floor(whole / 3600)} h ${two(Math.floor((whole % 3600) / 60))} min`;
  }
  function bytes(count) {
    let value = count;
    for (const unit of ["B", "kB", "MB", "GB"]) {
      if (value < 999.5) return `${value < 9.95 && unit !== "B" ? value.toFixed(1) : Math.round(value)} ${unit}`;
      value /= 1000;
    }
    return `${value.toFixed(1)} TB`;
  }
  const icon = (mark) => el("svg", { class: "icon", "aria-hidden": "true" }, el("use", { href: `#i-${mark}` }));
  const badge = (cell) => el("span", { class: `badge ${cell.mark}` }, icon(cell.mark), WORDS[cell.mark]);
  const changeMark = (kind) => el("span", { class: `change ${kind.replaceAll(" ", "-")}` }, kind);

  // Bars of a cell's past, the newest at the right; those of failures are hatched and full-high.
  function spark(cell, column, say) {
    const points = cell.trend;
    const most = Math.max(...points.map((point) => point[column]), 1e-9);
    const step = 100 / Math.max(points.length, 8);
    const bars = points.map((point, number) => {
      const ok = point[1] === "success";
      const high = ok ? Math.max(3, (94 * point[column]) / most) : 94;
      const kind = ok ? "success" : point[1] === "failed" ? "failed" : "other";
      const x = 100 - (points.length - number) * step;
      const told = ok ? say(point[column]) : point[1];
      return el(
        "rect",
        { class: number === points.length - 1 ? `${kind} now` : kind, x, y: 100 - high, width: step * 0.8, height: high },
        el("title", {}, `${RUNS[point[0]].began || RUNS[point[0]].id}: ${told}`),
      );
    });
    const succeeded = points.filter((point) => point[1] === "success").length;
    const label = `${succeeded} of the last ${points.length} runs succeeded; last ${say(points.at(-1)[column])}`;
    const base = el("line", { class: "base", x1: 0, x2: 100, y1: 100, y2: 100 });
    return el("svg", { class: "spark", viewBox: "0 0 100 100", preserveAspectRatio: "none", role: "img", "aria-label": label }, base, bars);
  }

  // ---- state: the fragment ----
  function read() {
    const given = new URLSearchParams(location.hash.slice(1));
    return Object.fromEntries(KEYS.filter((key) => given.get(key)).map((key) => [key, given.get(key)]));
  }
  function fragment(next) {
    const text = new URLSearchParams(Object.entries(next).filter(([, value]) => value)).toString();
    return text ? `#${text}` : `${location.pathname}${location.search}`;
  }
  function change(changes, push) {
    const next = fragment({ ...state, ...changes });
    if (push) history.pushState(null, "", next);
    else history.replaceState(null, "", next);
    apply();
  }

  // ---- filters and order ----
  function fits(cell) {
    const { host, target, outcome, note, q } = state;
    if ((host && cell.host !== host) || (target && cell.target !== target)) return false;
    if (outcome && !(GROUPS[outcome] ? GROUPS[outcome][1](cell) : cell.mark === outcome)) return false;
    if (state.class && cell.class !== state.class) return false;
    if (note && String(cell.note) !== note) return false;
    if (state.change && !cell.changes.some(([kind]) => kind === state.change)) return false;
    return !q || q.toLowerCase().split(/\s+/).every((word) => cell.text.includes(word));
  }
  // What is compared of a cell; cells without a value come last.
  function valueOf(cell, key) {
    if (key === "outcome") return RANK.indexOf(cell.mark);
    if (key === "change") return cell.changes.length ? cell.changes[0][0] : null;
    return cell[key] === "" || cell[key] === undefined ? null : cell[key];
  }
  function compare(one, other, key, down) {
    if (one === null || other === null) return (one === null) - (other === null);
    const order = typeof one === "string" ? one.localeCompare(other, "en", { numeric: true }) : one - other;
    return down ? -order : order;
  }
  function sorted(numbers) {
    if (!state.sort) return numbers;
    const down = state.sort.startsWith("-");
    const key = state.sort.replace(/^-/, "");
    return [...numbers].sort((a, b) => compare(valueOf(CELLS[a], key), valueOf(CELLS[b], key), key, down) || a - b);
  }

  function apply() {
    state = read();
    shown = sorted([...CELLS.keys()].filter((number) => fits(CELLS[number])));
    const view = state.view || (NARROW.matches ? "list" : "table");
    for (const control of form.elements) {
      if (!control.name) continue;
      if (control.type === "radio") control.checked = control.value === view;
      else {
        if (control.value !== (state[control.name] || "")) control.value = state[control.name] || "";
        control.classList.toggle("used", Boolean(state[control.name]) && control.name !== "sort");
      }
    }
    find("clear").disabled = !FILTERS.some((key) => state[key]) && !state.sort;
    find("shown").textContent = shown.length === CELLS.length ? `${CELLS.length} cells` : `${shown.length} of ${CELLS.length} cells`;
    find("nothing").hidden = shown.length > 0;
    find("table-view").hidden = view !== "table" || shown.length === 0;
    find("list-view").hidden = view !== "list" || shown.length === 0;
    showNote();
    if (view === "table") showTable();
    else showList();
    showDetails();
  }
  function showNote() {
    const first = state.note && CELLS.find((cell) => String(cell.note) === state.note);
    const box = find("note-shown");
    box.hidden = !first;
    if (first) box.replaceChildren("Only cells with this cause: ", el("b", {}, first.class || WORDS[first.mark]), ` ${first.reason}`);
  }

  // ---- table ----
  function showTable() {
    const fitting = new Set(shown);
    const hosts = new Set(shown.map((number) => CELLS[number].host));
    const targets = new Map();
    for (const number of shown) if (!targets.has(CELLS[number].target)) targets.set(CELLS[number].target, targets.size);
    for (const link of links) {
      const inside = fitting.has(Number(link.dataset.cell));
      link.classList.toggle("out", !inside);
      link.tabIndex = -1;
    }
    for (const place of document.querySelectorAll("#matrix [data-host]")) place.hidden = !hosts.has(place.dataset.host);
    for (const row of rows) row.hidden = !targets.has(row.dataset.target);
    const order = state.sort && state.sort !== "host" ? [...rows].sort((a, b) => (targets.get(a.dataset.target) ?? 1e9) - (targets.get(b.dataset.target) ?? 1e9)) : rows;
    const body = document.querySelector("#matrix tbody");
    if (order.some((row, number) => body.children[number] !== row)) body.append(...order);
    const first = links.find((link) => !link.classList.contains("out") && link.offsetParent);
    const wanted = links.find((link) => state.cell && CELLS[link.dataset.cell].name === state.cell) || first;
    if (wanted) wanted.tabIndex = 0;
  }
  // Arrow keys in the table: to the next cell that is shown, in the row or the column.
  function move(event) {
    const link = event.target.closest("a.cell");
    const steps = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0], Home: [0, -1e9], End: [0, 1e9] };
    const step = steps[event.key];
    if (!link || !step || event.altKey || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    const grid = [...document.querySelectorAll("#matrix tbody tr:not([hidden])")].map((row) => [...row.querySelectorAll("td:not([hidden])")]);
    let line = grid.findIndex((row) => row.includes(link.closest("td")));
    let column = grid[line].indexOf(link.closest("td"));
    if (Math.abs(step[1]) > 1) column = step[1] < 0 ? -1 : grid[line].length;
    const by = step.map(Math.sign);
    if (Math.abs(step[1]) > 1) by[1] = -by[1];
    for (;;) {
      line += by[0];
      column += by[1];
      const place = grid[line] && grid[line][column];
      if (!place) return;
      const next = place.querySelector("a.cell:not(.out)");
      if (next) {
        link.tabIndex = -1;
        next.tabIndex = 0;
        next.focus();
        return;
      }
    }
  }

  // ---- list ----
  const COLUMNS = [["name", "Cell"], ["outcome", "Outcome"], ["reason", "Why"], ["seconds", "Time"], ["bytes", "Images"], ["boot", "Boot"], ["change", "Change"], [null, "Trend of time"]];
  function showList() {
    const sortKey = (state.sort || "").replace(/^-/, "");
    const down = (state.sort || "").startsWith("-");
    const heads = COLUMNS.map(([key, label]) => {
      if (!key) return el("th", { scope: "col" }, label);
      const next = sortKey !== key ? (key === "seconds" || key === "bytes" ? `-${key}` : key) : down ? key : `-${key}`;
      const arrow = sortKey === key ? (down ? " ↓" : " ↑") : "";
      const attributes = { scope: "col", class: key === "seconds" || key === "bytes" ? "number" : null, "aria-sort": sortKey === key ? (down ? "descending" : "ascending") : null };
      return el("th", attributes, el("button", { type: "button", click: () => change({ sort: next }) }, label + arrow));
    });
    const lines = shown.map((number) => {
      const cell = CELLS[number];
      return el(
        "tr",
        {},
        el("td", { class: "cell-name" }, el("a", { href: `#cell=${encodeURIComponent(cell.name)}`, "data-cell": number }, cell.name)),
        el("td", {}, badge(cell)),
        el("td", { class: "why" }, cell.class && cell.reason ? `${cell.class}: ${cell.reason}` : cell.class || cell.reason),
        el("td", { class: "number", "data-label": cell.seconds === null ? null : "time" }, cell.seconds === null ? "" : seconds(cell.seconds)),
        el("td", { class: "number", "data-label": cell.bytes === null ? null : "images" }, cell.bytes === null ? "" : bytes(cell.bytes)),
        el("td", {}, cell.boot),
        el("td", {}, cell.changes.map(([kind]) => changeMark(kind))),
        el("td", {}, cell.trend.length > 1 ? spark(cell, 2, seconds) : null),
      );
    });
    const table = el("table", { class: "list" }, el("thead", {}, el("tr", {}, heads)), el("tbody", {}, lines));
    find("list-view").replaceChildren(table);
  }

  // ---- details ----
  function block(title, ...content) {
    return content.flat().some(Boolean) ? el("section", { class: "block" }, el("h3", {}, title), ...content) : null;
  }
  function tableOf(heads, lines) {
    const head = el("thead", {}, el("tr", {}, heads.map((text) => el("th", { scope: "col" }, text))));
    const body = lines.map((line) => el("tr", {}, line.map((item, number) => el(number ? "td" : "th", { scope: number ? null : "row" }, item))));
    return el("div", { class: "scroll" }, el("table", { class: "plain" }, head, el("tbody", {}, body)));
  }
  function timesOf(cell) {
    const most = Math.max(...cell.timings.map(([, value]) => value), 1e-9);
    const line = ([what, value]) =>
      el(
        "tr",
        {},
        el("th", { scope: "row", title: what }, what),
        el(
          "td",
          {},
          el("svg", { viewBox: "0 0 100 10", preserveAspectRatio: "none", "aria-hidden": "true" }, el("rect", { class: "track", width: 100, height: 10 }), el("rect", { width: (100 * value) / most, height: 10 })),
        ),
        el("td", {}, seconds(value)),
      );
    return el("table", { class: "times" }, el("tbody", {}, cell.timings.map(line)));
  }
  function logOf(number) {
    logs = logs || JSON.parse(find("logs").textContent);
    const cell = CELLS[number];
    const log = logs[number];
    const link = cell.log ? el("a", { href: cell.log.split("/").map(encodeURIComponent).join("/") }, cell.log) : null;
    if (!log) return block("Log", link ? el("p", {}, "Not in this page: ", link) : null);
    const left = log.left_out ? el("p", { class: "meta" }, `The last lines; ${bytes(log.left_out)} before them are in `, link) : el("p", { class: "meta" }, link);
    const text = el("pre", { class: "log", tabindex: 0, "aria-label": "Log" }, log.text);
    requestAnimationFrame(() => (text.scrollTop = text.scrollHeight));
    return block("Log", left, text);
  }
  function trendsOf(cell) {
    if (cell.trend.length < 2) return null;
    const succeeded = cell.trend.filter((point) => point[1] === "success");
    const say = (column, text) => {
      const values = succeeded.map((point) => point[column]);
      const range = values.length ? `${text(Math.min(...values))} to ${text(Math.max(...values))}` : "never a success";
      return el("div", {}, spark(cell, column, text), el("p", {}, `${column === 2 ? "Time" : "Images"}: ${range}`));
    };
    const sum = el("p", {}, `Succeeded in ${succeeded.length} of the last ${cell.trend.length} runs; the newest is at the right.`);
    const charts = [say(2, seconds), succeeded.some((point) => point[3]) ? say(3, bytes) : null];
    return el("div", { class: "trends" }, sum, charts);
  }
  function detailsOf(number) {
    const cell = CELLS[number];
    const place = shown.indexOf(number);
    const go = (by) => {
      const next = shown[place + by];
      return el("button", { type: "button", "aria-label": by < 0 ? "previous cell" : "next cell", title: by < 0 ? "previous (←)" : "next (→)", disabled: place < 0 || next === undefined, click: () => change({ cell: CELLS[next].name }) }, by < 0 ? "←" : "→");
    };
    const last = cell.attempts.at(-1);
    const axes = Object.entries(cell.axes).filter(([, value]) => value !== cell.host && value !== cell.target);
    const facts = [
      ["host", cell.host], ["target", cell.target], ...axes,
      ["time", cell.seconds === null ? "" : seconds(cell.seconds)],
      ["images", cell.bytes === null ? "" : bytes(cell.bytes)],
      ["boot", cell.boot],
      ["steps", cell.ran + cell.cached ? `${cell.ran} run, ${cell.cached} cached` : ""],
      ["worker", last ? last.worker : ""],
      ["needs", cell.needs.join(", ")],
      ["resumed", cell.resumed ? "done in an earlier part of this run" : ""],
    ].filter(([, value]) => value);
    const attempts = cell.attempts.map((one, count) => [
      String(count + 1), one.worker, one.began, seconds(one.seconds),
      one.outcome === "failed" ? `failed with status ${one.status}${one.class ? `, ${one.class}` : ""}` : one.outcome,
      el("span", {}, one.outcome === "failed" ? one.reason : ""),
    ]);
    const outputs = cell.outputs.map(([name, format, size, allocated, digest]) => [name, format, bytes(size), bytes(allocated), el("span", { class: "digest" }, digest)]);
    const hint = last && last.hint && cell.reason ? el("span", { class: "hint" }, el("b", {}, "What to do: "), last.hint) : null;
    const changes = cell.changes.map(([kind, text]) => el("li", {}, changeMark(kind), ` ${text}`));
    return [
      el(
        "header",
        { class: "d-head" },
        el("h2", { id: "d-name", tabindex: -1 }, cell.name),
        el("div", { class: "d-buttons" }, go(-1), go(1), el("button", { type: "button", "aria-label": "close", title: "close (Esc)", click: close }, "✕")),
        el("div", { class: "badges" }, badge(cell), cell.class ? el("span", { class: "badge" }, cell.class) : null),
      ),
      cell.reason ? el("p", { class: `callout ${cell.mark}` }, cell.reason, hint) : null,
      el("dl", { class: "facts" }, facts.map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, value)))),
      block("Since the previous run", changes.length ? el("ul", {}, changes) : null),
      block("Where the time went", cell.timings.length ? timesOf(cell) : null),
      block("Trend", trendsOf(cell)),
      block("Images", outputs.length ? tableOf(["Name", "Format", "Size", "On disk", "SHA-256"], outputs) : null),
      block("Attempts", attempts.length ? tableOf(["No.", "Worker", "Began", "Took", "Outcome", "Reason"], attempts) : null),
      logOf(number),
    ];
  }
  function showDetails() {
    const number = byName.get(state.cell);
    if (number === undefined) {
      if (dialog.open) dialog.close();
      return;
    }
    const focused = dialog.contains(document.activeElement) ? document.activeElement.getAttribute("aria-label") : null;
    find("details-content").replaceChildren(...detailsOf(number).filter(Boolean));
    dialog.scrollTop = 0;
    if (!dialog.open) {
      opener = document.activeElement;
      dialog.showModal();
    }
    const button = focused && dialog.querySelector(`.d-buttons button[aria-label="${focused}"]:enabled`);
    (button || find("d-name")).focus();
  }
  function close() {
    change({ cell: "" });
  }

  // ---- what a person does ----
  function fill(name, options) {
    const select = form.elements[name];
    for (const [value, label] of options) select.append(el("option", { value }, label));
    select.closest("label").hidden = options.length === 0 && !state[name];
  }
  const count = (test) => CELLS.filter(test).length;
  const marks = RANK.filter((mark) => mark !== "success" && count((cell) => cell.mark === mark)).map((mark) => [mark, (cell) => cell.mark === mark, WORDS[mark]]);
  const groups = Object.entries(GROUPS).map(([value, [label, test]]) => [value, test, label]);
  fill("outcome", [...groups, ...marks].filter(([, test]) => count(test)).map(([value, test, label]) => [value, `${label} (${count(test)})`]));
  const distinct = (values) => [...new Set(values)].filter(Boolean).sort();
  fill("class", distinct(CELLS.map((cell) => cell.class)).map((kind) => [kind, `${kind} (${count((cell) => cell.class === kind)})`]));
  fill("change", distinct(CELLS.flatMap((cell) => cell.changes.map(([kind]) => kind))).map((kind) => [kind, `${kind} (${count((cell) => cell.changes.some((one) => one[0] === kind))})`]));

  const changed = (event) => change({ [event.target.name]: event.target.value });
  form.addEventListener("input", changed);
  form.addEventListener("change", changed);
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", (event) => {
    event.preventDefault();
    change(Object.fromEntries([...FILTERS, "sort"].map((key) => [key, ""])));
  });
  // Links of the page change what they name: a cell is opened among what is filtered, a tile or a cause starts anew.
  document.addEventListener("click", (event) => {
    const link = event.target.closest('a[href^="#"]');
    if (!link || event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    const wanted = Object.fromEntries(new URLSearchParams(link.getAttribute("href").slice(1)));
    if (wanted.cell) {
      change({ cell: wanted.cell }, true);
      return;
    }
    change({ ...Object.fromEntries(FILTERS.map((key) => [key, ""])), ...wanted }, true);
    find("results").scrollIntoView();
  });
  find("matrix").addEventListener("keydown", move);
  document.addEventListener("keydown", (event) => {
    const typing = event.target.closest("input, select, textarea, .log");
    if (event.key === "/" && !typing && !dialog.open) {
      event.preventDefault();
      form.elements.q.focus();
    } else if (dialog.open && !typing && (event.key === "ArrowLeft" || event.key === "ArrowRight")) {
      const button = dialog.querySelector(`button[aria-label="${event.key === "ArrowLeft" ? "previous" : "next"} cell"]`);
      if (!button.disabled) button.click();
    }
  });
  dialog.addEventListener("cancel", (event) => {
    event.preventDefault();
    close();
  });
  dialog.addEventListener("click", (event) => {
    if (event.target === dialog) close();
  });
  dialog.addEventListener("close", () => {
    if (state.cell) close();
    if (opener && opener.isConnected) opener.focus();
  });
  window.addEventListener("hashchange", apply);
  window.addEventListener("popstate", apply);
  NARROW.addEventListener("change", apply);
  form.hidden = false;
  apply();
})();
