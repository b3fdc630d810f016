// What the page knows: an index from the start; a feature's detail is parsed when it is asked for.

const index = JSON.parse(byId("index").textContent);
const lines = index.lines;
const placeOf = new Map(lines.map((line, place) => [line.number, place]));
const haystacks = new Map();

function lineOf(number) {
  return placeOf.has(number) ? lines[placeOf.get(number)] : null;
}

// null if the page was cut off before it, or if the feature is not on it.
function detailOf(number) {
  const element = byId(`detail-${number}`);
  return element ? JSON.parse(element.textContent) : null;
}

function textOf(context) {
  return context.runs.map((run) => (typeof run === "string" ? run : run[0])).join("");
}

function contextsOf(detail) {
  return detail.bands.flatMap((band) => band.contexts);
}

// All text of a feature in lower case, a part per line: what the search looks through.
function haystackOf(line) {
  if (!haystacks.has(line.number)) haystacks.set(line.number, collected(line));
  return haystacks.get(line.number);
}

function collected(line) {
  const detail = detailOf(line.number);
  const texts = [`feature ${line.number}`, line.model, line.verdict, line.explanation, ...line.tokens];
  if (line.label !== null) texts.push(index.labels[line.label]);
  if (detail) {
    texts.push(...contextsOf(detail).map(textOf));
    for (const found of detail.tokens) {
      texts.push(...[...found.promoted, ...found.suppressed].map((token) => token.text));
    }
    for (const prompt of detail.prompts) texts.push(prompt.prompt, ...prompt.samples.map((one) => one.text));
  }
  return texts.join("\n").toLowerCase();
}

// The stretch of a context that a search found, as [before, found, behind]; null if in none.
function foundIn(line, query) {
  const detail = detailOf(line.number);
  for (const context of detail ? contextsOf(detail) : []) {
    const text = textOf(context);
    const at = text.toLowerCase().indexOf(query);
    if (at >= 0) {
      const end = at + query.length;
      return [text.slice(Math.max(0, at - 70), at), text.slice(at, end), text.slice(end, end + 70)];
    }
  }
  return null;
}

function shadeOf(model) {
  return model === index.models[0] ? "a" : model === index.models[1] ? "b" : "n0";
}
