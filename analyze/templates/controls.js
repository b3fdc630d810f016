// The search and the filters of the table.

const ORDERS = {
  rank: "strongest first", q: "q", ratio: "readout ratio", direction: "direction", density: "density", r: "R", number: "number",
};

function drawControls() {
  choices("by-model", "model", values("model"));
  choices("by-group", "group", values("group"));
  choices("by-verdict", "verdict", values("verdict"));
  if (!index.judged) byId("by-verdict").previousSibling.textContent = "Claim";
  choices("by-label", "label", [...new Set(lines.map((one) => one.label))].filter((label) => label !== null).sort((a, b) => a - b));
  const known = Object.keys(ORDERS).filter((key) => key === RANK || COLUMNS.some((column) => column.key === key));
  const orders = byId("by-order");
  orders.append(...known.map((key) => make("option", {value: key}, ORDERS[key])));
  orders.addEventListener("change", () => sortBy(orders.value, orders.value === "density"));
  byId("query").addEventListener("input", later(() => narrow("query", byId("query").value)));
  byId("reset").addEventListener("click", reset);
  byId("previous").addEventListener("click", () => turn(-1));
  byId("next").addEventListener("click", () => turn(1));
}

function values(key) {
  return [...new Set(lines.map((one) => one[key]))].filter(Boolean);
}

// A choice with how many features it leaves; hidden where there is nothing to choose.
function choices(id, key, found) {
  const select = byId(id);
  const of = (value) => lines.filter((one) => one[key] === value).length;
  const name = (value) => (key === "label" ? index.labels[value] : value);
  select.append(make("option", {value: ""}, "all"));
  select.append(...found.map((value) => make("option", {value}, `${visible(name(value))} (${of(value)})`)));
  select.addEventListener("change", () => narrow(key, select.value));
  select.parentElement.hidden = found.length < 2 && !lines.some((one) => !isKnown(one[key]));
  if (!found.length) select.parentElement.hidden = true;
}

function narrow(key, value) {
  if (view[key] === value) return;
  view[key] = value;
  view.page = 0;
  refresh();
}

function reset() {
  Object.assign(view, {sort: RANK, down: false, query: "", model: "", group: "", verdict: "", label: "", page: 0});
  for (const control of byId("controls").querySelectorAll("input, select")) control.value = control.id === "by-order" ? RANK : "";
  refresh();
}

function turn(pages) {
  view.page += pages;
  drawRows();
  byId("features").scrollIntoView();
}

// Runs once typing has stopped for a moment.
function later(action) {
  let timer = 0;
  return () => {
    clearTimeout(timer);
    timer = setTimeout(action, 120);
  };
}

// For options of a list, which hold nothing but text.
function visible(text) {
  return text.replace(HIDDEN, (found) => `⟨U+${found.charCodeAt(0).toString(16).toUpperCase().padStart(4, "0")}⟩`);
}
