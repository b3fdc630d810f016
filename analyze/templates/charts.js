// The two charts of the page, and the curves of steering.

const LEFT = 44, BOTTOM = 40, RIGHT = 8, TOP = 10;

function drawNorms() {
  const box = byId("norms-chart");
  const groups = index.norms.groups.filter((group) => group.counts.some((count) => count));
  const bins = groups.length ? groups[0].counts.length : 0;
  box.before(legend(groups.map((group) => [group.shade, `${group.name} (${sum(group.counts).toLocaleString("en")})`])));
  box.dataset.title = "Histogram of relative decoder norms; its counts per bin are in the text below";
  tipsIn(box);
  const most = Math.max(1, ...Array.from({length: bins}, (_, bin) => sum(groups.map((group) => group.counts[bin]))));
  drawIn(box, 270, (width, height) => {
    const x = scale(0, 1, LEFT, width - RIGHT), floor = height - BOTTOM;
    const y = scale(Math.log10(0.7), Math.log10(most * 1.1), floor, TOP);
    const powers = [1, 10, 100, 1000, 1e4, 1e5, 1e6].filter((power) => power <= most);
    const bars = Array.from({length: bins}, (_, bin) => bin).flatMap((bin) => stack(groups, bin, bins, x, y, floor));
    return [
      ...leftAxis((count) => y(Math.log10(count)), LEFT, powers.map((power) => [power, power.toLocaleString("en")]), width - RIGHT),
      ...[0.2, 0.8].map((value) => line(x(value), TOP, x(value), floor, "guide")),
      ...bars,
      ...bottomAxis(x, floor, [0, 0.2, 0.4, 0.6, 0.8, 1].map((value) => [value, String(value)]), LEFT, width - RIGHT),
      words(LEFT, height - 4, `${short(index.models[1])} alone`, "start"),
      words(width - RIGHT, height - 4, `${short(index.models[0])} alone`, "end"),
    ];
  });
}

// Bars of one bin, one on the other; heights are those of the logarithm of what is below their top.
function stack(groups, bin, bins, x, y, floor) {
  const parts = [];
  let below = 0, at = floor;
  const width = Math.max(1, x(1 / bins) - x(0) - 0.6);
  for (const group of groups) {
    const count = group.counts[bin];
    if (!count) continue;
    below += count;
    const top = y(Math.log10(below));
    const attributes = {x: x(bin / bins), y: top, width, height: Math.max(0, at - top), class: `fill-${group.shade}`};
    const range = `${(bin / bins).toFixed(2)}–${((bin + 1) / bins).toFixed(2)}`;
    parts.push(tipped(drawn("rect", attributes), `R ${range}: ${count.toLocaleString("en")} of ${group.name}`));
    at = top;
  }
  return parts;
}

function drawScatter(scatter) {
  const nulls = scatter.null.length > 0;
  const box = byId(`scatter-${scatter.name}`);
  box.dataset.title = `${scatter.title} against relative decoder norm; the values are in the table below`;
  const points = lines.filter((one) => one[scatter.name] !== null && one.r !== null);
  const present = new Set(points.map((one) => one.group));
  const groups = Object.keys(index.group_shades).filter((group) => present.has(group));
  box.before(legend([...groups.map((group) => [index.group_shades[group], group]), ...(nulls ? [["null", `${scatter.null_name}: ${scatter.null_title}`]] : [])]));
  tipsIn(box);
  box.addEventListener("click", (event) => event.target.feature !== undefined && openFeature(event.target.feature));
  drawIn(box, 270, (width, height) => {
    const side = nulls ? Math.min(110, width * 0.22) : 0, right = width - RIGHT - side, floor = height - BOTTOM;
    const x = scale(-0.09, 1.09, LEFT, right), y = scale(0, scatter.top, floor, TOP);
    const ticks = [0, 0.2, 0.4, 0.6, 0.8, 1].map((value) => [value, String(value)]);
    return [
      ...leftAxis(y, LEFT, ticksTo(scatter.top), width - RIGHT),
      ...bottomAxis(x, floor, ticks, LEFT, right),
      words((LEFT + right) / 2, height - 4, "R"),
      ...points.map((one) => point(one, scatter, x, y)),
      ...nullBars(scatter, right, side, y),
      nulls ? words(right + side / 2 + 6, floor + 17, scatter.null_name) : null,
    ];
  });
}

function point(one, scatter, x, y) {
  const value = one[scatter.name];
  const aside = one.r === 0 || one.r === 1 ? (spread(one.number) - 0.5) * 0.14 : 0;
  const kind = `fill-${index.group_shades[one.group]}${one.verdict === "exclusive" ? " ringed" : ""}`;
  const circle = drawn("circle", {cx: x(one.r + aside), cy: y(Math.min(Math.max(0, value), scatter.top)), r: 3.4, class: kind});
  circle.feature = one.number;
  return tipped(circle, `feature ${one.number}: R ${figure(one.r)}, ${figure(value)}${one.verdict ? ", " + one.verdict : ""}`);
}

function nullBars(scatter, from, side, y) {
  const most = Math.max(...scatter.null, 1), count = scatter.null.length;
  const length = scale(0, most, 0, side - 14);
  return scatter.null.map((n, bin) => {
    const top = y(((bin + 1) * scatter.top) / count), height = y((bin * scatter.top) / count) - top;
    return n ? drawn("rect", {x: from + 12, y: top, width: Math.max(1, length(n)), height: Math.max(0.5, height - 0.5), class: "null"}) : null;
  });
}

// KL over alpha where the feature fires (solid) and where it is silent (dashed); grey: a random direction.
const CURVES = [
  ["random_silent", "curve silent stroke-n0", "random direction, silent"],
  ["random_firing", "curve stroke-n0", "random direction, firing"],
  ["silent", "curve silent", "silent"],
  ["firing", "curve", "firing"],
];

function drawCurve(box, curve, highest) {
  box.dataset.title = `KL divergence over alpha, steering ${curve.model}`;
  tipsIn(box);
  drawIn(box, 190, (width, height) => {
    const alphas = curve.points.map((one) => one.alpha), floor = height - BOTTOM;
    const x = scale(Math.min(...alphas), Math.max(...alphas), LEFT, width - RIGHT - 6), y = scale(0, highest || 1, floor, TOP);
    return [
      ...leftAxis(y, LEFT, ticksTo(highest || 1, 3), width - RIGHT),
      ...bottomAxis(x, floor, alphas.map((alpha) => [alpha, figure(alpha, 1)]), LEFT, width - RIGHT),
      words((LEFT + width) / 2, height - 4, "α"),
      ...CURVES.flatMap(([key, kind, name]) => path(curve, key, kind, name, x, y)),
    ];
  });
}

function path(curve, key, kind, name, x, y) {
  const known = curve.points.filter((one) => one[key] !== null);
  const shade = kind.includes("stroke") ? "n0" : shadeOf(curve.model);
  const steps = known.map((one, place) => `${place ? "L" : "M"}${x(one.alpha).toFixed(1)} ${y(one[key]).toFixed(1)}`);
  const dots = known.map((one) =>
    tipped(drawn("circle", {cx: x(one.alpha), cy: y(one[key]), r: 3, class: `fill-${shade}`}), `α ${one.alpha}, ${name}: KL ${figure(one[key])}`),
  );
  return [drawn("path", {d: steps.join(""), class: `${kind} stroke-${shade}`}), ...dots];
}

function sum(values) {
  return values.reduce((total, value) => total + value, 0);
}

function short(name) {
  return name.length > 24 ? name.slice(0, 23) + "…" : name;
}

// A number in [0, 1) that looks random, the same each time.
function spread(number) {
  return ((Math.imul(number + 1, 2654435761) >>> 0) % 4096) / 4096;
}
