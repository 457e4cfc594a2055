// What the page shows of the answer, and says to those who listen.

const SEEN_SIDE = 28; // pixels of what the model sees, in a row
const SILENCE_MS = 700; // a screen reader speaks when the pen rests, not twenty times a second

export const element = (id) => document.getElementById(id);

const rows = Array.from({ length: 10 }, (_, digit) => makeRow(digit));
let silence = 0;

function makeRow(digit) {
  const [group, name, value, track, bar, share] = ["div", "dt", "dd", "span", "i", "span"].map((tag) =>
    document.createElement(tag),
  );
  name.textContent = digit;
  track.className = "bar";
  share.className = "share";
  track.append(bar);
  value.append(track, share);
  group.append(name, value);
  return { group, bar, share };
}

export const view = {
  build() {
    element("bars").append(...rows.map(({ group }) => group));
    this.showNothing();
  },

  /** The paper is empty. */
  showNothing() {
    setState("empty");
    showDigit("", "Nothing drawn yet");
    showShares(Array(10).fill(0), -1);
    showSeen([], "Nothing yet");
    this.showProblem("");
    clearTimeout(silence);
    this.say("");
  },

  /** There is something on it; if anew, what is shown belongs to another drawing. */
  showDrawing(anew) {
    if (element("main").dataset.state === "empty") {
      setState("waiting");
      showDigit("", "");
    } else if (anew) {
      this.showStale();
    }
  },

  /** What is shown belongs to an earlier drawing. */
  showStale() {
    clearTimeout(silence);
    element("main").classList.add("stale");
  },

  showAnswer({ digit, confidence, probabilities, rejected, pixels, version }, millis) {
    const percent = toPercent(confidence, 2);
    setState(rejected ? "rejected" : "answered");
    showDigit(digit, rejected ? "Looks like no digit" : `${percent} %`);
    showShares(probabilities, digit);
    showSeen(fromBase64(pixels ?? ""), `28 by 28 pixels, read as ${rejected ? "no digit" : digit}`);
    element("facts").hidden = false;
    element("version").textContent = version;
    element("millis").textContent = `${Math.max(1, Math.round(millis))} ms`;
    this.showProblem("");
    this.saySoon(rejected ? "Looks like no digit." : `${digit}, ${percent} percent.`);
  },

  /** Say what is wrong, in one line; nothing is: "". */
  showProblem(text) {
    if (element("problem").textContent !== text) element("problem").textContent = text; // spoken once, not at each try
  },

  showHint(text) {
    element("hint").textContent = text;
  },

  showCommand(withKey) {
    const key = withKey ? ` -H "authorization: Bearer $API_KEY"` : "";
    const address = new URL("predict", location.href);
    element("command").textContent = `curl ${address}${key} -H content-type:image/png --data-binary @digit.png`;
  },

  say(text) {
    element("announcement").textContent = text;
  },

  saySoon(text) {
    clearTimeout(silence);
    silence = setTimeout(() => this.say(text), SILENCE_MS);
  },
};

function setState(state) {
  element("main").dataset.state = state;
  element("main").classList.remove("stale");
}

function showDigit(digit, verdict) {
  element("digit").textContent = digit;
  element("verdict").textContent = verdict;
}

function showShares(shares, first) {
  rows.forEach(({ group, bar, share }, digit) => {
    group.className = digit === first ? "first" : "";
    bar.style.setProperty("--share", shares[digit]);
    share.textContent = first < 0 ? "" : toPercent(shares[digit], 1);
  });
}

function showSeen(greys, label) {
  const context = element("seen").getContext("2d");
  const image = context.createImageData(SEEN_SIDE, SEEN_SIDE); // transparent where there are no greys
  greys.forEach((grey, index) => image.data.set([grey, grey, grey, 255], 4 * index));
  context.putImageData(image, 0, 0);
  element("seen").setAttribute("aria-label", label);
}

/** Cut, not rounded: nothing is 100 percent that is less. */
function toPercent(share, decimals) {
  const unit = 10 ** decimals;
  return (Math.floor(share * 100 * unit + 1e-6) / unit).toFixed(decimals);
}

const fromBase64 = (text) => Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
