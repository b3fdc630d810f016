// Parts of an opened feature: evidence, other features, steering.

const FACTS = [["value", "value"], ["null", "by chance"], ["p", "p"]];

// One table for all sources, so that columns stand in line; columns of which nothing is known are left out.
function factsTable(found) {
  const columns = FACTS.filter(([key]) => found.some((one) => one.facts.some((fact) => fact[key] !== null)));
  const head = ["", ...columns.map(([, name]) => name), ""].map((name) => make("th", {scope: "col"}, name));
  const row = (fact) =>
    make("tr", {}, make("th", {scope: "row"}, shown(fact.name.replaceAll("_", " "))), columns.map(([key, name]) => make("td", {"data-name": name}, fact[key] === null ? "" : cellOf(fact[key]))), make("td", {class: "meaning"}, index.meanings[fact.name] || ""));
  const source = (one) => {
    const name = one.where ? `${one.source}, ${one.where}` : one.source;
    return make("tbody", {}, make("tr", {}, make("th", {scope: "rowgroup", colspan: columns.length + 2, class: "source"}, shown(name))), one.facts.map(row));
  };
  return make("div", {class: "scroll"}, make("table", {class: "facts"}, make("thead", {}, make("tr", {}, head)), found.map(source)));
}

function evidence(detail) {
  const [norms, rest] = [true, false].map((wanted) => detail.evidence.filter((one) => (one.source === "norms") === wanted));
  return [
    rest.length ? make("h3", {}, "Evidence") : null,
    rest.length ? factsTable(rest) : null,
    norms.length ? make("details", {}, make("summary", {}, "Norms"), factsTable(norms)) : null,
  ];
}

function cellOf(value) {
  return typeof value === "boolean" ? (value ? "yes" : "no") : typeof value === "string" ? shown(value) : figure(value);
}

function featureLink(number) {
  return placeOf.has(number) ? make("a", {href: `#feature-${number}`}, `feature ${number}`) : `feature ${number}`;
}

// Other features, each with its likeness to this one and what it fires on.
function nearList(found, linked = true) {
  const rows = found.map((near) => {
    const one = linked ? lineOf(near.feature) : null;
    const measures = Object.entries(near.likeness).map(([name, value]) => `${name.replaceAll("_", " ")} ${typeof value === "number" ? figure(value) : value === true ? "yes" : value === false ? "no" : value}`);
    const about = one ? [one.group, one.label === null ? "" : `${index.labels[one.label]} ${percent(one.share)}`].filter(Boolean).join(", ") : "";
    return make(
      "tr",
      {},
      make("th", {scope: "row"}, linked ? featureLink(near.feature) : `feature ${near.feature}`),
      make("td", {class: "soft"}, shown(near.model)),
      make("td", {class: "soft"}, shown(measures.join(" · "))),
      make("td", {class: "soft"}, shown(about)),
    );
  });
  return make("div", {class: "scroll"}, make("table", {}, make("tbody", {}, rows)));
}

function tokensOf(found) {
  const list = (name, tokens) =>
    tokens.length ? make("p", {}, make("span", {class: "soft"}, `${name} `), tokens.map((one) => make("span", {class: "token", title: figure(one.logit)}, shown(one.text)))) : null;
  return make("div", {}, make("h4", {}, shown(found.model)), list("promotes", found.promoted), list("suppresses", found.suppressed));
}

function steering(detail) {
  if (!detail.curves.length && !detail.prompts.length) return [];
  const values = detail.curves.flatMap((curve) => curve.points.flatMap((one) => CURVES.map(([key]) => one[key])));
  const highest = Math.max(0, ...values.filter((value) => value !== null));
  return [
    make("h3", {}, "Steering"),
    detail.curves.length ? make("p", {class: "soft"}, "KL divergence of the next token's distribution from the untouched model's, with α times the feature's largest activation added along its decoder: solid where it fires, dashed where it is silent; grey, a random direction of the same length.") : null,
    make("div", {class: "pair"}, detail.curves.map((curve) => curveOf(curve, highest))),
    ...detail.prompts.map(promptOf),
  ];
}

function curveOf(curve, highest) {
  const box = make("div", {class: "chart"});
  drawCurve(box, curve, highest);
  const counts = [curve.positions_firing, curve.positions_silent].map((count) => (count === null ? "?" : count.toLocaleString("en")));
  const last = curve.points[curve.points.length - 1];
  const changed = last.top1_firing === null ? "" : ` At α ${figure(last.alpha, 1)} the top token changes at ${percent(last.top1_firing)} and ${percent(last.top1_silent)}.`;
  return make(
    "figure",
    {},
    make("h4", {}, steered(curve), curve.hookpoint ? make("span", {class: "soft"}, " ", shown(curve.hookpoint)) : null),
    box,
    curve.steerable ? null : make("p", {class: "missing"}, "This model does not see the feature: there is no direction to add, and nothing may change."),
    make("p", {class: "soft"}, `${counts[0]} positions firing, ${counts[1]} silent.${changed}`),
    curve.moved ? [tokenList(`α ${figure(curve.moved.alpha, 1)} raises`, curve.moved.raised), tokenList("and lowers", curve.moved.lowered)] : null,
  );
}

function steered(found) {
  return [make("bdi", {class: `of-${shadeOf(found.model)}`}, shown(found.model)), found.mapped ? " along the mapped direction" : " along its decoder"];
}

function tokenList(name, texts) {
  return texts.length ? make("p", {}, make("span", {class: "soft"}, `${name} `), texts.map(token)) : null;
}

function promptOf(found) {
  const samples = found.samples.map((one) => make("div", {class: "sample"}, make("b", {}, `α ${figure(one.alpha, 1)}`), shown(one.text)));
  return make("div", {}, make("h4", {}, steered(found), " writes on", found.kind ? ` (${visible(found.kind)})` : ""), make("div", {class: "prompt"}, shown(found.prompt)), make("div", {class: "samples"}, samples));
}
