// The Embed dialog of the page: which parts, how large, when it begins, an assignment, and what to paste into course material.
// Loaded when it is opened; it knows the page by window.headlight alone, and writes text into attributes, never HTML.

import { fragmentOf } from "./headlight-link.js";

const PARTS = {
  prompt: "Prompt", tokens: "Tokens", output: "Next token", ablation: "Edits and what follows", map: "Head map",
  pattern: "Attention pattern", inspector: "Head inspector", plots: "Plots and layers", lesson: "Assignment",
};
const MAX_HEIGHT = 4000;

const page = () => location.origin + location.pathname;
const escaped = (text) => text.replaceAll("&", "&amp;").replaceAll('"', "&quot;").replaceAll("<", "&lt;");

/** Questions as a teacher types them, one a line: "head: …", "choice: … | a | b"; anything else is answered in words. */
export const questionsOf = (lines) =>
  lines.split("\n").map((line) => line.trim()).filter(Boolean).map((line) => {
    const [, kind, rest] = /^(head|choice|text)\s*:\s*(.*)$/i.exec(line) ?? [null, "text", line];
    const [ask, ...choices] = kind.toLowerCase() === "choice" ? rest.split("|").map((piece) => piece.trim()) : [rest];
    const given = choices.filter(Boolean);
    if (given.length > 0) return { ask, kind: "choice", choices: given };
    return { ask, kind: kind.toLowerCase() === "head" ? "head" : "text" };
  });

const linesOf = (questions) =>
  questions.map(({ ask, kind, choices }) =>
    kind === "choice" ? `choice: ${ask} | ${choices.join(" | ")}` : kind === "head" ? `head: ${ask}` : ask).join("\n");

/** An element with attributes, listeners (functions) and children. */
const make = (name, attributes = {}, ...children) => {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (typeof value === "function") element.addEventListener(key, value);
    else if (value !== false) element.setAttribute(key, value === true ? "" : value);
  }
  element.append(...children);
  return element;
};

const check = (text, testid, isOn, onChange) =>
  make("label", { class: "check" },
    make("input", { type: "checkbox", "data-testid": testid, checked: isOn, change: (event) => onChange(event.target.checked) }), text);

const choice = (text, options, onChange) =>
  make("label", { class: "setting" }, make("span", {}, text),
    make("select", { class: "select", change: (event) => onChange(event.target.value) },
      ...options.map(([value, label]) => make("option", { value }, label))));

const snippet = (label, testid) => {
  const area = make("textarea", { class: "editor mono", readonly: true, rows: 3, "aria-label": label, "data-testid": testid });
  const copy = make("button", { class: "button", type: "button", "data-testid": `${testid}-copy` }, "Copy");
  copy.addEventListener("click", async () => {
    // Where the clipboard is refused the text stays selected for the keyboard's own copy.
    area.select();
    try {
      await navigator.clipboard.writeText(area.value);
      copy.textContent = "Copied";
    } catch (_) {}
  });
  const show = (text) => {
    area.value = text;
    copy.textContent = "Copy";
  };
  return { show, element: make("div", { class: "snippet" }, make("div", { class: "setting" }, make("span", {}, label), copy), area) };
};

/** The view with its assignment, and what the flags of a frame say. */
const compose = async (state, wanted) => {
  const { lesson: _, hide: __, ...view } = state;
  const lesson = { ...wanted.lesson, questions: questionsOf(wanted.questions) };
  for (const [name, value] of Object.entries(lesson)) if (value.length === 0) delete lesson[name];
  const hasLesson = Object.keys(lesson).length > 0;
  if (hasLesson) view.lesson = lesson;
  const hide = Object.keys(PARTS).filter((part) => !wanted.shown.has(part));
  const flags = hide.map((part) => [part, "0"]);
  if (wanted.isReadOnly) flags.push(["readonly", "1"]);
  if (wanted.start === "click") flags.push(["start", "click"]);
  if (wanted.theme) flags.push(["theme", wanted.theme]);
  const letters = await fragmentOf(view);
  const fragment = letters && `#${letters}`;
  const title = lesson.title || "Headlight: attention heads";
  const query = [["embed", "1"], ...flags].map((flag) => flag.join("=")).join("&");
  const frame = `${page()}?${query}${fragment}`;
  const downloads = hasLesson ? " allow-downloads" : "";
  const size = wanted.width === "100%" ? "" : ` width="${escaped(wanted.width)}"`;
  const attributes = flags.map(([name, value]) => ` ${name}="${value}"`).join("");
  const whole = await fragmentOf(hide.length > 0 ? { ...view, hide } : view);
  return {
    frame,
    html: `<iframe src="${escaped(frame)}" width="${escaped(wanted.width)}" height="${wanted.height}" title="${escaped(title)}" ` +
      `sandbox="allow-scripts allow-popups allow-popups-to-escape-sandbox${downloads}" loading="lazy" style="border: 0"></iframe>`,
    element: `<script type="module" src="${escaped(new URL("headlight-view.js", import.meta.url).href)}"></script>\n` +
      `<headlight-view link="${fragment}" title="${escaped(title)}"${attributes}${size} height="${wanted.height}"` +
      `${hasLesson ? " downloads" : ""}></headlight-view>`,
    link: page() + (whole && `#${whole}`),
  };
};

const assignment = (wanted, change) => {
  const field = (name, kind, label, testid, attributes, read, write) => {
    const element = make(name, { class: kind, "aria-label": label, "data-testid": testid, ...attributes });
    element.value = read;
    element.addEventListener("input", () => {
      write(element.value);
      change();
    });
    return element;
  };
  const lock = (name, text) =>
    check(text, `assignment-lock-${name}`, wanted.lesson.lock.includes(name), (isOn) => {
      wanted.lesson.lock = wanted.lesson.lock.filter((other) => other !== name).concat(isOn ? [name] : []);
      change();
    });
  return make("details", { class: "assignment-form", "data-testid": "assignment-form" },
    make("summary", {}, "Make an assignment"),
    field("input", "field", "Title of the assignment", "assignment-title", { placeholder: "Title", maxlength: 200 },
      wanted.lesson.title, (value) => (wanted.lesson.title = value)),
    field("textarea", "editor", "Text of the assignment", "assignment-text",
      { placeholder: "What is to be done. An empty line begins a paragraph.", maxlength: 8000 },
      wanted.lesson.text, (value) => (wanted.lesson.text = value)),
    field("textarea", "editor", "Questions, one a line", "assignment-questions",
      { placeholder: "One question a line:\nWhy does it look there?\nhead: Which head continues the name?\nchoice: What changes? | nothing | the name" },
      wanted.questions, (value) => (wanted.questions = value)),
    make("div", { class: "checks" }, lock("prompt", "Students keep this prompt"), lock("model", "Students keep this model")),
    make("p", { class: "quiet" }, "The assignment is part of the links and snippets below; whoever opens them can read it. " +
      "Students export their answers themselves; nothing is sent anywhere."));
};

/** Opens the dialog about the page as it is. */
export const open = async () => {
  const state = await window.headlight.state();
  const { title = "", text = "", questions = [], lock = [] } = state.lesson ?? {};
  const wanted = {
    shown: new Set(Object.keys(PARTS).filter((part) => !(state.hide ?? []).includes(part))),
    isReadOnly: false, start: "click", theme: "", width: "100%", height: 640,
    lesson: { title, text, lock }, questions: linesOf(questions),
  };
  const frame = snippet("A frame", "embed-iframe");
  const element = snippet("As a web component: loads when seen, resizes itself", "embed-element");
  const link = snippet("Link to the full page", "embed-link");
  const preview = make("div");
  let address = "";
  const change = async () => {
    const made = await compose(state, wanted);
    frame.show(made.html);
    element.show(made.element);
    link.show(made.link);
    address = made.frame;
    const shown = preview.querySelector("iframe");
    if (shown && shown.src !== address) shown.src = address;
  };
  const set = (name) => (value) => {
    wanted[name] = value;
    change();
  };
  const size = (label, name, read) => {
    const input = make("input", { class: "field embed-size", value: wanted[name], "aria-label": label });
    input.addEventListener("change", () => {
      wanted[name] = read(input.value.trim()) ?? wanted[name];
      input.value = wanted[name];
      change();
    });
    return make("label", { class: "setting" }, make("span", {}, label), input);
  };
  const togglePreview = (event) => {
    const has = preview.firstChild !== null;
    event.target.textContent = has ? "Preview" : "End the preview";
    if (has) return preview.replaceChildren();
    preview.append(make("iframe", {
      class: "embed-preview", "data-testid": "embed-preview", title: "Preview", sandbox: "allow-scripts", src: address,
      style: `height: ${wanted.height}px`,
    }));
  };
  const dialog = make("dialog", { class: "picker embed-dialog", "aria-label": "Embed this view", "data-testid": "embed-dialog" },
    make("div", { class: "picker-head" }, make("h2", {}, "Embed this view"),
      make("button", { class: "button", click: () => dialog.close() }, "Close")),
    make("div", { class: "embed-form" },
      make("fieldset", { class: "checks" }, make("legend", {}, "Shown"),
        ...Object.entries(PARTS).map(([part, label]) => check(label, `embed-part-${part}`, wanted.shown.has(part), (isOn) => {
          if (isOn) wanted.shown.add(part);
          else wanted.shown.delete(part);
          change();
        }))),
      make("div", { class: "embed-row" },
        check("Read-only", "embed-readonly", false, set("isReadOnly")),
        choice("Starts", [["click", "on a click"], ["now", "at once"]], set("start")),
        choice("Colours", [["", "the reader's"], ["light", "light"], ["dark", "dark"]], set("theme")),
        size("Width", "width", (text) => /^[1-9]\d{0,4}(%|px)?$/.exec(text)?.[0].replace("px", "")),
        size("Height", "height", (text) => (/^\d{1,6}$/.test(text) ? Math.min(Math.max(Number(text), 1), MAX_HEIGHT) : undefined))),
      assignment(wanted, change), frame.element, element.element, link.element,
      make("div", { class: "setting" },
        make("button", { class: "button", "data-testid": "embed-preview-button", click: togglePreview }, "Preview"),
        make("span", { class: "quiet" }, "As readers see it, in a sandboxed frame.")),
      preview));
  dialog.addEventListener("close", () => dialog.remove());
  document.body.append(dialog);
  await change();
  dialog.showModal();
};
