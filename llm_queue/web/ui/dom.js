// Elements, made and kept. Text becomes text nodes and nothing else: no name of a program is ever read as HTML.

const SVG = "http://www.w3.org/2000/svg";

/** An element with `attributes` and `children` (elements, or text). `on` has its listeners by event. */
export function make(tag, { on = {}, ...attributes } = {}, ...children) {
  return filled(document.createElement(tag), on, attributes, children);
}

/** The same for a drawing. */
export function draw(tag, { on = {}, ...attributes } = {}, ...children) {
  return filled(document.createElementNS(SVG, tag), on, attributes, children);
}

function filled(element, on, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) element.setAttribute(name, String(value));
  }
  for (const [event, listener] of Object.entries(on)) element.addEventListener(event, listener);
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

/** Set the text of an element, if it is another: what has not changed is not painted again. */
export function say(element, text) {
  const wanted = String(text);
  if (element.textContent !== wanted) element.textContent = wanted;
}

/** Show or hide an element. */
export function show(element, wanted) {
  element.hidden = !wanted;
}

/** Set an attribute, or take it away for null. */
export function mark(element, name, value) {
  if (value === null || value === false) element.removeAttribute(name);
  else if (element.getAttribute(name) !== String(value)) element.setAttribute(name, String(value));
}

/** A list whose rows live as long as their items do, so that one which is open, or has the focus, keeps it. */
export class Rows {
  #parent;
  #create;
  #rows = new Map();

  /** `create(item)` makes `{element, update(item)}`. */
  constructor(parent, create) {
    this.#parent = parent;
    this.#create = create;
  }

  /** Show these items, in this order; `keyOf` names each. A key that comes twice is shown once. */
  show(items, keyOf) {
    const wanted = new Map(items.map((item) => [keyOf(item), item]));
    for (const [key, row] of this.#rows) {
      if (!wanted.has(key)) {
        row.element.remove();
        this.#rows.delete(key);
      }
    }
    let place = this.#parent.firstElementChild;
    for (const [key, item] of wanted) {
      let row = this.#rows.get(key);
      if (row === undefined) {
        row = this.#create(item);
        this.#rows.set(key, row);
      }
      row.update(item);
      if (row.element === place) place = place.nextElementSibling;
      else this.#parent.insertBefore(row.element, place);
    }
  }
}
