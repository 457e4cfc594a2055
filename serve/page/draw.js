// The page's program: what mouse, finger, pen, keyboard and files do to the paper.
// Modules, hence strict. Plain JavaScript as browsers have it: no library, no build, nothing from another host.

import { Paper } from "./paper.js";
import { Problem, Questions, apiKey } from "./questions.js";
import { element, view } from "./view.js";

const STEP = 1 / 28; // of the keyboard's pen
const FINE_STEP = STEP / 4;
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

const LARGEST_FILE_BYTES = 32 * 2 ** 20; // an upload that the endpoint cuts off would look like a lost connection

const HINT = "Or drop or paste a picture.";
const KEYS_HINT = "Arrow keys move the pen, Space puts it down and lifts it.";

const clamp = (value) => Math.min(1, Math.max(0, value));

/** One pointer at a time, so that the ball of the hand beside a pen draws nothing. */
function drawWithPointer(canvas, paper) {
  let pointer = null;

  const toPoint = (event) => {
    const box = canvas.getBoundingClientRect();
    return { x: (event.clientX - box.left) / box.width, y: (event.clientY - box.top) / box.height };
  };
  const lift = (event) => {
    if (event.pointerId !== pointer) return;
    pointer = null;
    paper.end();
  };

  canvas.addEventListener("pointerdown", (event) => {
    if (event.button !== 0 || pointer !== null) return;
    pointer = event.pointerId;
    canvas.setPointerCapture(pointer);
    paper.showPen(null);
    paper.begin(toPoint(event));
  });
  canvas.addEventListener("pointermove", (event) => {
    if (event.pointerId !== pointer) return;
    const passed = event.getCoalescedEvents?.() ?? []; // several between two frames
    paper.extend((passed.length ? passed : [event]).map(toPoint));
  });
  canvas.addEventListener("pointerup", lift);
  canvas.addEventListener("pointercancel", lift);
}

/** A pen that the arrow keys move, two of them at once in between; Space puts it down and lifts it. */
function drawWithKeys(canvas, paper) {
  const pen = { x: 0.5, y: 0.5, down: false };
  const held = new Set();

  const move = (step) => {
    for (const key of held) {
      pen.x = clamp(pen.x + ARROWS[key][0] * step);
      pen.y = clamp(pen.y + ARROWS[key][1] * step);
    }
    if (pen.down) paper.extend([{ x: pen.x, y: pen.y }]);
  };
  const put = (down) => {
    pen.down = down;
    if (down) paper.begin({ x: pen.x, y: pen.y });
    else paper.end();
    view.say(down ? "Pen down." : "Pen up.");
  };

  canvas.addEventListener("keydown", (event) => {
    const { key } = event;
    if (event.altKey || event.ctrlKey || event.metaKey || !(key === " " || key in ARROWS)) return;
    event.preventDefault(); // it would scroll
    pen.down &&= paper.drawing; // cleared or taken back meanwhile
    if (key !== " ") {
      held.add(key);
      move(event.shiftKey ? FINE_STEP : STEP);
    } else if (!event.repeat) {
      put(!pen.down);
    }
    paper.showPen(pen);
  });
  canvas.addEventListener("keyup", ({ key }) => held.delete(key));
  canvas.addEventListener("focus", () => {
    if (!canvas.matches(":focus-visible")) return; // a click
    paper.showPen(pen);
    view.showHint(KEYS_HINT);
  });
  canvas.addEventListener("blur", () => {
    held.clear();
    if (pen.down) put(false);
    paper.showPen(null);
    view.showHint(HINT);
  });
}

/** Clear and undo, by button and by key. */
function bindTools(paper) {
  element("clear").addEventListener("click", () => paper.clear());
  element("undo").addEventListener("click", () => paper.undo());
  if (/Mac|iP/.test(navigator.platform)) element("undo-key").textContent = "⌘ Z";
  document.addEventListener("keydown", (event) => {
    if (event.target === element("key")) return;
    if (event.key === "Escape") paper.clear();
    if (event.key.toLowerCase() === "z" && (event.ctrlKey || event.metaKey) && !event.shiftKey) {
      event.preventDefault();
      paper.undo();
    }
  });
}

/** Pictures that are chosen, pasted, or dropped anywhere. */
function takePictures(paper) {
  let newest = null;

  const take = async (file) => {
    if (!file) return;
    newest = file;
    const result = await readPicture(file);
    if (newest !== file) return;
    if (result instanceof Problem) return view.showProblem(result.message);
    paper.show(...result);
    view.showHint(result[1] ? HINT : `This browser cannot show ${file.name}.`);
  };
  const showLanding = (shown) => element("paper").classList.toggle("over", shown);

  element("file").addEventListener("change", ({ target }) => {
    take(target.files[0]);
    target.value = ""; // so that the same file can be chosen again
  });
  document.addEventListener("paste", (event) => take(event.clipboardData.files[0]));
  document.addEventListener("dragover", (event) => {
    event.preventDefault(); // else the browser would leave the page for the file
    showLanding(event.dataTransfer.types.includes("Files"));
  });
  document.addEventListener("dragleave", (event) => event.relatedTarget ?? showLanding(false));
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    showLanding(false);
    take(event.dataTransfer.files[0]);
  });
}

/** Returns a copy in memory and its bitmap, or a Problem; what is a picture is decided by the endpoint, not here. */
async function readPicture(file) {
  if (file.size > LARGEST_FILE_BYTES) return new Problem(`${file.name} is too large; reduce the picture.`);
  try {
    const type = file.type.startsWith("image/") ? file.type : "image/x-unknown";
    const copy = new Blob([await file.arrayBuffer()], { type });
    return [copy, await createImageBitmap(copy).catch(() => null)];
  } catch {
    return new Problem(`${file.name} cannot be read.`); // a folder, or gone
  }
}

/** The field for the API key, shown where the endpoint asks for one. */
function makeKeyField(again) {
  const [form, field, inUse] = ["key-form", "key", "key-in-use"].map(element);

  const show = (wanted) => {
    if (!wanted && form.contains(document.activeElement)) element("canvas").focus();
    form.hidden = !wanted;
    inUse.hidden = wanted || !apiKey.value;
    view.showCommand(wanted || apiKey.value);
  };

  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const value = field.value.trim();
    // Nothing else fits into a header.
    if (!/^[!-~]+$/.test(value)) return view.showProblem("A key has letters, digits and signs only, no spaces.");
    apiKey.save(value);
    again();
  });
  element("forget-key").addEventListener("click", () => {
    apiKey.save("");
    show(true);
    field.focus();
  });
  return {
    refused() {
      apiKey.refused();
      show(true);
    },
    accepted() {
      field.value = "";
      show(false);
    },
  };
}

function start() {
  const canvas = element("canvas");
  const paper = new Paper(canvas, (anew) => {
    if (paper.empty) view.showNothing();
    else view.showDrawing(anew);
    questions.next(anew);
  });
  const questions = new Questions(paper, (result, millis) => {
    if (result.code === "unauthorized") keyField.refused();
    if (result instanceof Problem) {
      view.showProblem(result.message);
      view.showStale();
    } else {
      keyField.accepted();
      view.showAnswer(result, millis);
    }
  });
  const keyField = makeKeyField(() => questions.next(false));

  apiKey.load();
  view.build();
  view.showHint(HINT);
  view.showCommand(apiKey.value);
  drawWithPointer(canvas, paper);
  drawWithKeys(canvas, paper);
  bindTools(paper);
  takePictures(paper);
}

start();
