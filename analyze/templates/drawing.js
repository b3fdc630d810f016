// Scales, axes and a tip for small drawings. Drawn anew where the width changes: letters keep their size.

function scale(low, high, from, to) {
  return (value) => from + ((value - low) / (high - low || 1)) * (to - from);
}

function drawIn(box, height, draw) {
  let width = 0;
  const redraw = (now) => {
    if (now < 40 || now === width) return;
    width = now;
    const svg = drawn("svg", {viewBox: `0 0 ${width} ${height}`, role: "img"});
    svg.append(...draw(width, height).filter(Boolean));
    svg.setAttribute("aria-label", box.dataset.title || "");
    box.replaceChildren(svg);
  };
  new ResizeObserver((entries) => redraw(Math.floor(entries[0].contentRect.width))).observe(box);
}

function words(x, y, text, anchor = "middle") {
  return drawn("text", {x, y, "text-anchor": anchor}, text);
}

function line(x1, y1, x2, y2, kind = "axis") {
  return drawn("line", {x1, y1, x2, y2, class: kind});
}

// Ticks along the bottom: [value, label].
function bottomAxis(x, y, ticks, from, to) {
  return [
    line(from, y, to, y),
    ...ticks.flatMap(([value, label]) => [line(x(value), y, x(value), y + 4, "tick"), words(x(value), y + 17, label)]),
  ];
}

// Ticks along the left with a grid: [value, label].
function leftAxis(y, x, ticks, to) {
  return ticks.flatMap(([value, label]) => [line(x, y(value), to, y(value), "tick"), words(x - 6, y(value) + 4, label, "end")]);
}

// Round steps that cut 0 to high into a few.
function ticksTo(high, wanted = 4) {
  const rough = (high || 1) / wanted;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((one) => one >= rough * 0.999);
  const ticks = [];
  for (let value = 0; value <= high * 1.0001; value += step) ticks.push([value, String(+value.toPrecision(6))]);
  return ticks;
}

function legend(entries) {
  return make(
    "ul",
    {class: "legend"},
    entries.map(([shade, text]) => make("li", {}, make("i", {class: `dot back-${shade}`}), shown(text))),
  );
}

// Tells of what lies under the pointer: elements with a `tip` property.
function tipsIn(box) {
  const tip = byId("tip");
  box.addEventListener("pointermove", (event) => {
    const text = event.target.tip;
    tip.hidden = !text;
    if (!text) return;
    tip.replaceChildren(...shown(text));
    tip.style.left = `${Math.min(event.clientX + 14, window.innerWidth - tip.offsetWidth - 8)}px`;
    tip.style.top = `${Math.max(8, event.clientY - tip.offsetHeight - 10)}px`;
  });
  box.addEventListener("pointerleave", () => (tip.hidden = true));
}

function tipped(element, text) {
  element.tip = text;
  return element;
}
