/**
 * Makes elements. Whatever comes from the server goes in as text: there is no innerHTML anywhere,
 * and the page's policy (require-trusted-types) would not let one through.
 */

const SVG = "http://www.w3.org/2000/svg";

/**
 * An element.
 *
 * @param {string} name of the tag; "svg:rect" makes one of SVG.
 * @param {Object} attributes a function is a listener ("onclick"); true is an empty attribute;
 *   null, undefined and false are left out.
 * @param {...(Node|string|number|null|Array)} children text is text, never markup.
 */
export function h(name, attributes = {}, ...children) {
  const element = name.startsWith("svg:")
    ? document.createElementNS(SVG, name.slice(4))
    : document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (typeof value === "function") element.addEventListener(key.slice(2), value);
    else if (key === "value" || key === "checked") element[key] = value;
    else element.setAttribute(key, value === true ? "" : String(value));
  }
  put(element, ...children);
  return element;
}

/** Append children, as `h` does. */
export function put(parent, ...children) {
  for (const child of children.flat(Infinity)) {
    if (child !== null && child !== undefined && child !== false) parent.append(child);
  }
}

/** Have these children, and no others. */
export function fill(parent, ...children) {
  parent.replaceChildren();
  put(parent, ...children);
}

let made = 0;

/** An id that no other element of the page has. */
export function fresh(prefix) {
  made += 1;
  return `${prefix}-${made}`;
}
