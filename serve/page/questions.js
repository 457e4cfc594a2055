// Questions to the endpoint: one at a time, always about the newest drawing.

const PAUSE_MS = 50; // between two questions: 20 a second look like at once, and leave the endpoint to others
const PATIENCE_MS = 15_000;
const RETRY_MS = [500, 1000, 2000, 4000];
const KEY_NAME = "mnist-api-key";

/** Why there is no answer, in one line for people. */
export class Problem extends Error {
  constructor(message, { code = "", retry = false, pauseMs = 0 } = {}) {
    super(retry ? `${message} Trying again.` : message);
    Object.assign(this, { code, retry, pauseMs });
  }
}

/** The API key, kept in this tab only; where the browser keeps nothing, until the page is left. */
export const apiKey = {
  value: "",
  missing: false, // the endpoint asks for one, and there is none
  wrong: false, // because the one that there was is none of its keys

  load() {
    try {
      this.value = sessionStorage.getItem(KEY_NAME) ?? "";
    } catch {
      this.value = "";
    }
  },

  save(value) {
    this.keep(value);
    this.missing = !value;
    this.wrong = false;
  },

  refused() {
    this.wrong ||= this.value !== "";
    this.keep("");
    this.missing = true;
  },

  keep(value) {
    this.value = value;
    try {
      if (value) sessionStorage.setItem(KEY_NAME, value);
      else sessionStorage.removeItem(KEY_NAME);
    } catch {
      // The value above is all there is then.
    }
  },
};

/** Asks about what is on the paper; what changes while a question is under way is the next one, all at once. */
export class Questions {
  #paper;
  #told;
  #newest = 0; // drawings are numbered
  #oldest = 0; // of which an answer is still of use
  #settled = 0; // that needs no question any more
  #failures = 0;
  #notBefore = 0;
  #timer = 0;
  #running = null;

  /** Calls `told` with each answer or Problem, and the milliseconds it took. */
  constructor(paper, told) {
    this.#paper = paper;
    this.#told = told;
  }

  /** There is another drawing; if it is not the last one and more, what is under way is of no use any more. */
  next(anew) {
    this.#newest += 1;
    if (anew) this.#restart();
    this.#plan();
  }

  #restart() {
    this.#oldest = this.#newest;
    this.#failures = this.#notBefore = 0;
    if (this.#paper.empty) this.#settled = this.#newest;
    this.#running?.abort();
    clearTimeout(this.#timer);
  }

  #plan() {
    if (this.#running || this.#settled === this.#newest) return;
    clearTimeout(this.#timer);
    if (apiKey.missing) {
      this.#settle(this.#newest, needsKey(), 0); // asking would be of no use
      return;
    }
    this.#timer = setTimeout(() => this.#ask(), Math.max(0, this.#notBefore - performance.now()));
  }

  async #ask() {
    const [asked, started, running] = [this.#newest, performance.now(), new AbortController()];
    this.#running = running;
    this.#notBefore = started + PAUSE_MS;
    const patience = setTimeout(() => running.abort(), PATIENCE_MS);
    const result = await ask(await this.#paper.toFile(), running.signal);
    clearTimeout(patience);
    this.#running = null;
    if (asked >= this.#oldest) this.#settle(asked, result, performance.now() - started);
    this.#plan();
  }

  #settle(asked, result, millis) {
    if (result.retry) {
      const pauseMs = RETRY_MS[Math.min(this.#failures, RETRY_MS.length - 1)];
      this.#failures += 1;
      this.#notBefore = performance.now() + Math.max(pauseMs, result.pauseMs);
    } else {
      this.#failures = 0;
      this.#settled = asked;
    }
    this.#told(result, millis);
  }
}

/** Ask about one file: returns the answer, or a Problem. */
async function ask(file, signal) {
  const headers = { "content-type": file.type };
  if (apiKey.value) headers.authorization = `Bearer ${apiKey.value}`;
  let response, text;
  try {
    response = await fetch("predict?pixels=1", { method: "POST", body: file, headers, signal });
    text = await response.text();
  } catch {
    return new Problem("The endpoint does not answer.", { retry: true });
  }
  const answer = parseJson(text);
  return response.ok ? readAnswer(answer) : readProblem(response, answer?.error ?? {});
}

function readAnswer(answer) {
  const prediction = answer?.predictions?.[0];
  if (!prediction?.probabilities) return new Problem("The endpoint's answer is none that this page can read.");
  return { ...prediction, version: answer.model_version };
}

function readProblem({ status, headers }, { code, message, request_id: id }) {
  if (code === "unauthorized") return needsKey();
  const pauseMs = 1000 * (Number(headers.get("retry-after")) || 0);
  if (status === 503 || status === 429) return new Problem("The endpoint is busy.", { code, retry: true, pauseMs });
  if (status >= 500) {
    const which = id ? `status ${status}, request ${id}` : `status ${status}`;
    return new Problem(`The endpoint failed (${which}).`, { code, retry: true, pauseMs });
  }
  return new Problem(toSentence(message ?? `the endpoint refused this with status ${status}`), { code });
}

function needsKey() {
  const text = apiKey.value || apiKey.wrong ? "This API key was not accepted." : "This endpoint asks for an API key.";
  return new Problem(text, { code: "unauthorized" });
}

function parseJson(text) {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}

const toSentence = (text) => text.charAt(0).toUpperCase() + text.slice(1) + (/[.!?]$/.test(text) ? "" : ".");
