// An opened feature: drawn when asked for, from its own JSON.

const FIRST_CONTEXTS = 4;

function drawFeature(number) {
  const one = lineOf(number), detail = one && detailOf(number), panel = byId("detail");
  panel.replaceChildren(bar(number, one), ...(detail ? body(one, detail) : [absent(number, one)]));
  panel.scrollTop = 0;
}

function absent(number, one) {
  if (one) return make("p", {class: "missing"}, "This page was cut off before this feature; write it again.");
  return make("p", {class: "missing"}, `Feature ${number} is not among the ${lines.length.toLocaleString("en")} of ${index.features.toLocaleString("en")} that this page shows; analyze.report_features sets how many.`);
}

function bar(number, one) {
  const place = order.findIndex((other) => other.number === number);
  const name = make("h2", {id: "detail-title"}, `Feature ${number}`);
  if (one) name.append(make("bdi", {class: `of-${shadeOf(one.model)}`}, ...shown(one.model)), ...(one.verdict ? [chip(one.verdict)] : []));
  const go = (steps, label, sign) =>
    make("button", {type: "button", "aria-label": label, disabled: !order[place + steps] || place < 0, click: () => stepBy(steps)}, sign);
  return make(
    "div",
    {class: "detail-bar"},
    name,
    place >= 0 ? make("span", {class: "soft"}, `${place + 1} of ${order.length}`) : null,
    go(-1, "Previous feature", "‹"),
    go(1, "Next feature", "›"),
    make("button", {type: "button", "aria-label": "Close", click: closeFeature}, "✕"),
  );
}

function body(one, detail) {
  return [
    one.explanation ? make("p", {class: "explanation"}, shown(one.explanation)) : null,
    make("p", {class: "soft"}, summaryOf(one, detail)),
    detail.reason ? make("p", {class: "soft"}, shown(detail.reason)) : null,
    ...shares(detail),
    ...contexts(detail),
    ...(detail.tokens.length ? [make("h3", {}, "Tokens it writes for"), make("div", {class: "pair"}, detail.tokens.map(tokensOf))] : []),
    ...evidence(detail),
    ...steering(detail),
    ...(detail.mirrors.length ? [make("h3", {}, "Mirror"), make("p", {class: "soft"}, "A feature of the other model's group that fires on the same rows: perhaps one concept, split in two."), nearList(detail.mirrors)] : []),
    ...(detail.neighbours.length ? [make("h3", {}, "Nearest features"), nearList(detail.neighbours)] : []),
    ...(detail.compared.length ? [make("h3", {}, "In the other dictionary"), nearList(detail.compared, false)] : []),
    ...notMade(),
  ].filter(Boolean);
}

function summaryOf(one, detail) {
  const parts = [`group ${visible(one.group)}`, `R ${one.r === null ? "–" : one.r.toFixed(3)}`, `fires on ${percent(one.density)} of rows (${detail.fires.toLocaleString("en")})`];
  if (one.q !== null) parts.push(`q ${figure(one.q)}`);
  if (detail.p !== null) parts.push(`p ${figure(detail.p)}`);
  if (detail.fires) {
    const quantiles = index.quantiles.map((level, place) => `${100 * level}% ${figure(detail.quantiles[place], 2)}`);
    parts.push(`largest activation ${figure(detail.largest, 2)}; quantiles where it fires: ${quantiles.join(", ")}`);
  }
  if (detail.own_ratio !== null) {
    const label = visible(detail.own_label);
    parts.push(detail.own_ratio < 0 ? `never outside ${label}` : `${figure(detail.own_ratio, 1)}× as often per row on ${label} as elsewhere`);
  }
  return parts.join(" · ");
}

function shares(detail) {
  if (!detail.fires) return [make("p", {class: "missing"}, "Dead: it fires on no row of the store.")];
  const known = index.labels.map((label, place) => [label, detail.shares[place], index.label_shades[place]]).filter(([, share]) => share > 0);
  known.sort((a, b) => b[1] - a[1]);
  const parts = known.map(([label, share, shade]) => {
    const part = make("i", {class: `back-${shade}`, title: `${visible(label)} ${percent(share)}`});
    part.style.width = `${100 * share}%`;
    return part;
  });
  return [make("h3", {}, "Where it fires"), make("div", {class: "shares", "aria-hidden": "true"}, parts), legend(known.map(([label, share, shade]) => [shade, `${label} ${percent(share)}`]))];
}

function contexts(detail) {
  const found = detail.bands.flatMap((band) => {
    const drawnOnes = band.contexts.map(contextOf), top = band.name === "top";
    const first = top ? drawnOnes.slice(0, FIRST_CONTEXTS) : [], more = top ? drawnOnes.slice(FIRST_CONTEXTS) : drawnOnes;
    const name = top ? counted(more.length, "more context") : `${visible(band.name)} of its activations (${counted(more.length, "context")})`;
    return [...first, more.length ? make("details", {}, make("summary", {}, name), more) : null];
  });
  const command = make("code", {}, `analyze features --feature ${detail.number}`);
  if (!found.length && detail.fires) return [make("p", {class: "missing"}, "No contexts of it yet: ", command, " makes them.")];
  const note = detail.shortened ? make("p", {class: "missing"}, "Contexts and samples were left out to keep the page small.") : null;
  return found.length ? [make("h3", {}, "Contexts"), ...found, note] : [];
}

function contextOf(context) {
  const runs = context.runs.map((run) => {
    if (typeof run === "string") return shown(run);
    const fired = make("span", {class: run.length > 2 ? "fired peak" : "fired", title: `${percent(run[1])} of its largest activation`}, shown(run[0]));
    fired.style.setProperty("--strength", run[1]);
    return fired;
  });
  const about = [context.label, `document ${context.document}`, context.activation === null ? "" : `activation ${figure(context.activation, 2)}`, context.cut ? "long stretches shortened" : ""];
  return make("div", {class: "context"}, make("span", {class: "text"}, runs), make("span", {class: "tag"}, shown(about.filter(Boolean).join(" · "))));
}

const OF_MODELS = ["fidelity", "replace"]; // tables without a line per feature

// What other commands would tell of a feature.
function notMade() {
  const commands = new Map();
  for (const [table, command] of Object.entries(index.missing)) if (!OF_MODELS.includes(table)) commands.set(command, [...(commands.get(command) || []), table.replaceAll("_", " ")]);
  if (!commands.size) return [];
  const told = [...commands].flatMap(([command, tables], place) => [place ? "; " : "", `${tables.join(", ")}: `, make("code", {}, command)]);
  return [make("p", {class: "missing"}, "Not made yet: ", told, ".")];
}
