/** The API's documentation, made of its OpenAPI document. */

import * as api from "./api.js";
import "./theme.js";
import { fill, h } from "./dom.js";
import { trouble } from "./shapes.js";
import { table } from "./table.js";

const KINDS = { get: "in", post: "good", put: "late", delete: "bad" };
const DEEPEST = 6;

async function start() {
  const main = document.getElementById("main");
  let told;
  try {
    told = await api.get("/v1/openapi.json");
  } catch (error) {
    fill(main, trouble(error));
    return;
  }
  const groups = grouped(told);
  fill(
    main,
    h("div", { class: "head" }, h("h1", {}, told.info.title, " ", h("small", {}, told.info.version))),
    told.info.description ? h("p", {}, prose(told.info.description)) : null,
    [...groups].map(([tag, endpoints]) => [
      h("h2", { id: `tag-${tag}` }, tag),
      endpoints.map((each) => endpoint(told, each)),
    ]),
  );
  fill(
    document.getElementById("nav"),
    [...groups].map(([tag, endpoints]) => [
      h("h2", {}, h("a", { href: `#tag-${tag}` }, tag)),
      h("ul", {}, endpoints.map((each) => h("li", {}, h("a", { href: `#${each.id}`, title: each.operation.summary }, h("span", { class: `verb ${KINDS[each.method]}` }, each.method), " ", each.path.replace(/^\/v1/, "").split(/(?=\/)/).flatMap((part) => [h("wbr"), part]))))),
    ]),
  );
  if (location.hash) document.getElementById(decodeURIComponent(location.hash.slice(1)))?.scrollIntoView();
}

/** Endpoints by what they are about, in the document's order. */
function grouped(told) {
  const groups = new Map();
  for (const [path, methods] of Object.entries(told.paths)) {
    for (const [method, operation] of Object.entries(methods)) {
      if (!(method in KINDS)) continue;
      const tag = operation.tags?.[0] ?? "other";
      const id = `${method}-${path.replace(/[^a-z0-9]+/gi, "-")}`;
      groups.set(tag, [...(groups.get(tag) ?? []), { path, method, operation, id, shared: methods.parameters ?? [] }]);
    }
  }
  return groups;
}

function endpoint(told, { path, method, operation, id, shared }) {
  const parameters = [...shared, ...(operation.parameters ?? [])].map((each) => resolve(told, each));
  const body = resolve(told, operation.requestBody ?? null);
  return h(
    "article",
    { class: "panel endpoint", id },
    h("h3", {}, h("span", { class: `badge method ${KINDS[method]}` }, method.toUpperCase()), h("code", {}, path)),
    h("p", {}, prose(operation.summary)),
    operation.description ? h("p", { class: "soft" }, prose(operation.description)) : null,
    parameters.length ? [h("h4", {}, "Parameters"), parametersOf(told, parameters)] : null,
    body ? Object.entries(body.content ?? {}).map(([type, { schema }]) => [h("h4", {}, `Body, ${type}`), shape(told, schema)]) : null,
    answers(told, Object.entries(operation.responses ?? {}).map(([status, answer]) => [status, resolve(told, answer)])),
  );
}

/** Text in which `words` like these are code. */
function prose(text = "") {
  return text.split("`").map((part, place) => (place % 2 ? h("code", {}, part) : part));
}

/** What may be answered; problems look alike everywhere, and fold away. */
function answers(told, all) {
  const good = all.filter(([status]) => Number(status) < 400);
  const bad = all.filter(([status]) => !(Number(status) < 400));
  return [
    good.map(([status, answer]) => response(told, status, answer)),
    bad.length
      ? h("details", {}, h("summary", { class: "soft" }, `Problems: ${bad.map(([status]) => status).join(", ")}`),
          bad.map(([status, answer]) => h("p", { class: "soft" }, h("b", {}, status), " ", prose(answer.description))))
      : null,
  ];
}

function parametersOf(told, parameters) {
  return table(
    "Parameters",
    [
      { title: "Name", kind: "mono", cell: (each) => each.name },
      { title: "In", cell: (each) => each.in + (each.required ? ", required" : "") },
      { title: "Type", kind: "mono", cell: (each) => words(told, each.schema ?? {}) },
      { title: "Meaning", kind: "main", cell: (each) => prose(each.description ?? resolve(told, each.schema)?.description) },
    ],
    parameters,
    "",
  );
}

function response(told, status, answer) {
  const types = Object.entries(answer.content ?? {});
  const about = `${status} ${answer.description ?? ""}`;
  if (types.length === 0) return h("p", { class: "soft" }, about);
  return types.map(([type, { schema }]) => [h("h4", {}, `${about}, ${type}`), schema ? shape(told, schema) : null]);
}

function shape(told, schema) {
  return h("code", { class: "shape", tabindex: "0" }, drawn(told, schema, "", 0));
}

/** What a reference stands for. */
function resolve(told, value) {
  if (value === null || value === undefined || value.$ref === undefined) return value;
  return value.$ref.replace(/^#\//, "").split("/").reduce((place, key) => place?.[key.replaceAll("~1", "/").replaceAll("~0", "~")], told);
}

/** A schema in a few words. */
function words(told, given) {
  const schema = resolve(told, given) ?? {};
  const either = schema.anyOf ?? schema.oneOf;
  if (either) return either.map((each) => words(told, each)).join(" or ");
  if (schema.const !== undefined) return JSON.stringify(schema.const);
  if (schema.enum) return schema.enum.map((each) => JSON.stringify(each)).join(" or ");
  if (schema.type === "array") return `list of ${words(told, schema.items ?? {})}`;
  const bounds = [
    schema.minimum !== undefined ? `≥ ${schema.minimum}` : "", schema.maximum !== undefined ? `≤ ${schema.maximum}` : "",
    schema.maxLength !== undefined ? `≤ ${schema.maxLength} characters` : "", schema.format ?? "",
  ].filter(Boolean);
  const type = Array.isArray(schema.type) ? schema.type.join(" or ") : schema.type ?? "any";
  return bounds.length ? `${type} (${bounds.join(", ")})` : type;
}

/** A schema as what fits it would look. */
function drawn(told, given, indent, depth) {
  const schema = resolve(told, given) ?? {};
  if (depth > DEEPEST) return "…";
  const within = `${indent}  `;
  const either = schema.anyOf ?? schema.oneOf;
  if (either) return either.map((each) => drawn(told, each, indent, depth + 1)).join(" or ");
  if (schema.properties) {
    const required = new Set(schema.required ?? []);
    const lines = Object.entries(schema.properties).map(([name, each]) => {
      const shown = `${within}${name}${required.has(name) ? "" : "?"}: ${drawn(told, each, within, depth + 1)}`;
      return each.description && !shown.includes("\n") ? `${shown}  — ${each.description}` : shown;
    });
    return `{\n${lines.join("\n")}\n${indent}}`;
  }
  if (schema.type === "array" && schema.items) return `[${drawn(told, schema.items, indent, depth + 1)}, …]`;
  if (schema.type === "array" && schema.prefixItems) return `[${schema.prefixItems.map((each) => drawn(told, each, indent, depth + 1)).join(", ")}]`;
  if (schema.type === "object" && schema.additionalProperties) return `{name: ${drawn(told, schema.additionalProperties, indent, depth + 1)}, …}`;
  return words(told, schema);
}

start();
