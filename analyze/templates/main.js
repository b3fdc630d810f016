// Puts the page together: the address names the opened feature, keys move through the table.

const opened = {number: null};

// Opens a feature; instead of the one that is open, so that going back leads to the table.
function openFeature(number) {
  const address = `#feature-${number}`;
  if (opened.number === null) location.hash = address;
  else location.replace(address);
  follow();
}

function closeFeature() {
  try {
    history.replaceState(null, "", location.pathname + location.search);
    follow();
  } catch {
    location.hash = "";
  }
}

// Shows what the address asks for.
function follow() {
  const asked = /^#feature-(\d+)$/.exec(location.hash);
  const before = opened.number, panel = byId("detail");
  opened.number = asked ? Number(asked[1]) : null;
  if (opened.number === before) return;
  panel.hidden = opened.number === null;
  byId("page").inert = opened.number !== null;
  document.body.classList.toggle("opened", opened.number !== null);
  byId("tip").hidden = true;
  if (opened.number !== null) {
    drawFeature(opened.number);
    panel.focus();
  } else if (before !== null) focusOn(before);
}

// Details of features come last in the page; what was asked for before they were there is done again.
function completed() {
  haystacks.clear();
  if (opened.number === null) follow();
  else drawFeature(opened.number);
  if (view.query) refresh();
}

function stepBy(steps) {
  const place = order.findIndex((one) => one.number === opened.number);
  const target = place < 0 ? null : order[place + steps];
  if (target) openFeature(target.number);
}

function pressed(event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const act = opened.number !== null ? KEYS_OPENED[event.key] : typing(event.target) ? KEYS_TYPING[event.key] : keyInTable(event);
  if (!act) return;
  event.preventDefault();
  act();
}

const KEYS_OPENED = {Escape: closeFeature, j: () => stepBy(1), k: () => stepBy(-1), ArrowRight: () => stepBy(1), ArrowLeft: () => stepBy(-1)};
const KEYS_TYPING = {Escape: () => (byId("query").value ? emptied() : byId("query").blur()), ArrowDown: toRows, Enter: toRows};
const KEYS = {j: () => moveBy(1), k: () => moveBy(-1), "/": () => (byId("query").focus(), byId("query").select())};
const KEYS_ROW = {
  ArrowDown: () => moveBy(1), ArrowUp: () => moveBy(-1), PageDown: () => moveBy(10), PageUp: () => moveBy(-10),
  Home: () => moveBy(-order.length), End: () => moveBy(order.length), Enter: () => openFeature(view.active),
};

function keyInTable(event) {
  const row = event.target.closest && event.target.closest("tr[data-feature]");
  return (row && KEYS_ROW[event.key]) || (isField(event.target) ? null : KEYS[event.key]);
}

function typing(target) {
  return target === byId("query");
}

function isField(target) {
  return ["INPUT", "SELECT", "TEXTAREA"].includes(target.tagName);
}

// What has been typed counts at once.
function toRows() {
  narrow("query", byId("query").value);
  if (view.active !== null) focusOn(view.active);
}

function emptied() {
  byId("query").value = "";
  narrow("query", "");
}

function start() {
  drawHead();
  drawControls();
  refresh();
  drawNorms();
  index.scatters.forEach(drawScatter);
  byId("table").tBodies[0].addEventListener("click", (event) => {
    const row = event.target.closest("tr[data-feature]");
    if (row && !event.target.closest("a") && !String(getSelection())) openFeature(Number(row.dataset.feature));
  });
  byId("table").tBodies[0].addEventListener("focusin", (event) => {
    const row = event.target.closest("tr[data-feature]");
    if (row) view.active = Number(row.dataset.feature);
  });
  document.addEventListener("keydown", pressed);
  window.addEventListener("hashchange", follow);
  document.addEventListener("DOMContentLoaded", completed);
}

start();
