"use strict";
// Builds elements. Text goes in as text nodes, never as markup: nothing of the corpus is parsed.

const SVG = "http://www.w3.org/2000/svg";
// Controls but new lines and tabs, bidirectional and invisible marks, halves of surrogate pairs.
const HIDDEN = /[\u0000-\u001f\u007f-\u009f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff]/gu;
const SIGNS = {"\n": "↵", "\t": "→", "\r": "␍"};

function filled(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (typeof value === "function") element.addEventListener(name, value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined));
  return element;
}

function make(tag, attributes = {}, ...children) {
  return filled(document.createElement(tag), attributes, children);
}

function drawn(tag, attributes = {}, ...children) {
  return filled(document.createElementNS(SVG, tag), attributes, children);
}

function byId(id) {
  return document.getElementById(id);
}

// Text as it is, in nodes: what would be invisible, or turn its surroundings round, is named beside it.
function shown(text) {
  const nodes = [];
  let from = 0;
  for (const found of text.matchAll(HIDDEN)) {
    if (found.index > from) nodes.push(text.slice(from, found.index));
    const kind = found[0] === "\n" ? "new-line" : "hidden-mark";
    const code = SIGNS[found[0]] || "U+" + found[0].charCodeAt(0).toString(16).toUpperCase().padStart(4, "0");
    nodes.push(make("span", {class: kind, "data-code": code, title: code}, found[0]));
    from = found.index + found[0].length;
  }
  if (from < text.length) nodes.push(text.slice(from));
  return nodes;
}

function figure(value, digits = 3) {
  if (value === null || value === undefined) return "–";
  if (typeof value !== "number") return String(value);
  const size = Math.abs(value);
  if (size >= 1e5) return value.toExponential(1);
  if (Number.isInteger(value)) return value.toLocaleString("en");
  return size < 10 ** -digits ? value.toExponential(1) : value.toFixed(size >= 100 ? 1 : digits);
}

function percent(value) {
  if (value === null || value === undefined) return "–";
  const share = 100 * value;
  return (share > 0 && share < 0.1 ? share.toPrecision(1) : share.toFixed(1)) + "%";
}

function counted(count, word) {
  return `${count.toLocaleString("en")} ${word}${count === 1 ? "" : "s"}`;
}
