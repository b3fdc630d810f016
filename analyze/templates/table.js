// The table of features: sorted, filtered, in pages; one row at a time has the keyboard.

const PAGE_ROWS = matchMedia("(max-width: 720px)").matches ? 20 : 50; // cards are taller than rows
const RANK = "rank";
const view = {sort: RANK, down: false, query: "", model: "", group: "", verdict: "", label: "", page: 0, active: null};
let order = lines;

const COLUMNS = [
  {key: "number", name: "feature", cell: (one) => make("a", {href: `#feature-${one.number}`, tabindex: "-1"}, String(one.number))},
  {key: "model", name: "model", kind: "text", cell: (one) => make("bdi", {class: `of-${shadeOf(one.model)}`}, shown(one.model))},
  {key: "group", name: "group", kind: "text", cell: (one) => shown(one.group)},
  {key: "verdict", name: index.judged ? "verdict" : "claim", kind: "text", cell: (one) => (one.verdict ? chip(one.verdict) : null)},
  {key: "q", name: "q", cell: (one) => figure(one.q)},
  {key: "r", name: "R", cell: (one) => (one.r === null ? "–" : one.r.toFixed(3))},
  {key: "ratio", name: "readout ratio", cell: (one) => figure(one.ratio)},
  {key: "direction", name: "direction", cell: (one) => figure(one.direction)},
  {key: "density", name: "density", cell: (one) => percent(one.density)},
  {key: "share", name: "mostly on", kind: "text whole", cell: (one) => (one.label === null ? null : [...shown(index.labels[one.label]), ` ${percent(one.share)}`])},
  {key: "explanation", name: "explanation", kind: "text", cell: (one) => shown(one.explanation)},
  {key: "tokens", name: "promotes", kind: "text tokens", cell: (one) => one.tokens.map(token)},
  {key: "snippet", name: "fires on", kind: "text snippet", cell: snippet},
].filter((column) => lines.some((one) => isKnown(one[column.key])));

function isKnown(value) {
  return value !== null && value !== "" && !(Array.isArray(value) && !value.length);
}

function chip(verdict) {
  return make("span", {class: `chip${verdict === "exclusive" ? " exclusive" : ""}`}, shown(verdict));
}

function token(text) {
  return make("span", {class: "token"}, shown(text));
}

function snippet(one) {
  const found = view.query && foundIn(one, view.query.toLowerCase());
  const [before, peak, behind] = found || one.snippet;
  if (before === undefined) return null;
  const flat = (text) => shown(text.replace(/\s+/g, " "));
  return make("div", {}, flat(before.slice(-36)), make(found ? "mark" : "b", {}, flat(peak)), flat(behind));
}

function drawHead() {
  const cells = COLUMNS.map((column) => {
    const sort = () => sortBy(column.key, view.sort === column.key ? !view.down : firstDown(column));
    return make("th", {scope: "col", role: "columnheader", class: column.kind, "data-key": column.key}, make("button", {type: "button", click: sort}, column.name));
  });
  byId("table").tHead.append(make("tr", {role: "row"}, cells));
}

// What one wants to see first: much firing, but little evidence of the other model having it.
function firstDown(column) {
  return ["density", "share"].includes(column.key);
}

function sortBy(key, down) {
  Object.assign(view, {sort: key, down, page: 0});
  refresh();
}

function refresh() {
  order = lines.filter(isWanted);
  if (view.sort !== RANK) order.sort(compare);
  else if (view.down) order.reverse();
  view.page = Math.min(view.page, Math.max(0, Math.ceil(order.length / PAGE_ROWS) - 1));
  drawRows();
}

function isWanted(one) {
  const query = view.query.toLowerCase();
  return (
    (!view.model || one.model === view.model) &&
    (!view.group || one.group === view.group) &&
    (!view.verdict || one.verdict === view.verdict) &&
    (view.label === "" || String(one.label) === view.label) &&
    (!query || haystackOf(one).includes(query))
  );
}

// What is not known comes last, up or down; equals keep their rank.
function compare(one, other) {
  const [a, b] = [one[view.sort], other[view.sort]].map((value) => (Array.isArray(value) ? value.join(" ") : value));
  if (!isKnown(a) || !isKnown(b)) return isKnown(b) - isKnown(a) || placeOf.get(one.number) - placeOf.get(other.number);
  const ascending = a < b ? -1 : a > b ? 1 : 0;
  return (view.down ? -ascending : ascending) || placeOf.get(one.number) - placeOf.get(other.number);
}

function drawRows() {
  const first = view.page * PAGE_ROWS, page = order.slice(first, first + PAGE_ROWS);
  if (!page.some((one) => one.number === view.active)) view.active = page.length ? page[0].number : null;
  const table = byId("table");
  table.tBodies[0].replaceChildren(...page.map((one, place) => row(one, first + place)));
  table.setAttribute("aria-rowcount", order.length + 1);
  for (const head of table.tHead.querySelectorAll("th")) {
    if (head.dataset.key === view.sort) head.setAttribute("aria-sort", view.down ? "descending" : "ascending");
    else head.removeAttribute("aria-sort");
  }
  const pages = Math.max(1, Math.ceil(order.length / PAGE_ROWS));
  byId("count").textContent = `${counted(order.length, "feature")} of ${lines.length.toLocaleString("en")} on this page`;
  byId("place").textContent = `page ${view.page + 1} of ${pages}`;
  byId("previous").disabled = view.page === 0;
  byId("next").disabled = view.page >= pages - 1;
}

function row(one, place) {
  const attributes = {role: "row", "data-feature": one.number, "aria-rowindex": place + 2, tabindex: one.number === view.active ? "0" : "-1"};
  const cells = COLUMNS.map((column) => make("td", {role: "gridcell", class: column.kind, "data-name": column.name}, column.cell(one)));
  return make("tr", attributes, cells);
}

function rowOf(number) {
  return byId("table").querySelector(`tr[data-feature="${number}"]`);
}

// Gives a feature's row the keyboard, on whatever page it is.
function focusOn(number) {
  const place = order.findIndex((one) => one.number === number);
  if (place < 0) return;
  const page = Math.floor(place / PAGE_ROWS);
  const before = view.active === null ? null : rowOf(view.active);
  if (before) before.tabIndex = -1;
  view.active = number;
  if (page !== view.page) {
    view.page = page;
    drawRows();
  }
  const target = rowOf(number);
  target.tabIndex = 0;
  target.focus();
}

function moveBy(steps) {
  const place = order.findIndex((one) => one.number === view.active);
  const target = order[Math.min(order.length - 1, Math.max(0, place + steps))];
  if (target) focusOn(target.number);
}
