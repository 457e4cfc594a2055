// The paper: what is on it, drawn for the screen and once more for the endpoint.

const PEN_WIDTH = 0.075; // all lengths on the paper are parts of its side
const SENT_SIDE = 336; // pixels of a drawing that is sent, whatever the screen: the same drawing, the same answer

/** Strokes, or one picture in their place. */
export class Paper {
  #canvas;
  #changed;
  #strokes = [];
  #open = null; // the stroke that is being drawn
  #picture = null;
  #pen = null; // the keyboard's, where it is shown
  #due = false;

  /** Calls `changed` when there is something else on the paper; with true if it is not what was there and more. */
  constructor(canvas, changed) {
    this.#canvas = canvas;
    this.#changed = changed;
    new ResizeObserver(() => this.#paint()).observe(canvas);
    addEventListener("resize", () => this.#paintSoon()); // zoomed, or moved to a sharper screen
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.#paintSoon());
  }

  get empty() {
    return !this.#picture && !this.#strokes.length;
  }

  get drawing() {
    return this.#open !== null;
  }

  /** Begin a stroke; points have x and y from 0 to 1. */
  begin(point) {
    const anew = this.#picture !== null;
    this.#put(null);
    this.#open = [point];
    this.#strokes.push(this.#open);
    this.#changed(anew);
  }

  extend(points) {
    if (!this.#open) return;
    this.#open.push(...points);
    this.#paintSoon();
    this.#changed(false);
  }

  end() {
    this.#open = null;
  }

  undo() {
    this.end();
    this.#strokes.pop();
    this.#put(null);
    this.#changed(true);
  }

  clear() {
    this.#replace(null);
  }

  /** Show a picture file; its bitmap is null where this browser cannot show it. */
  show(file, bitmap) {
    this.#replace({ file, bitmap });
  }

  showPen(pen) {
    this.#pen = pen;
    this.#paintSoon();
  }

  /** What is to be asked about: the picture's file as it is, or the strokes as PNG, black on white. */
  async toFile() {
    if (this.#picture) return this.#picture.file;
    const canvas = document.createElement("canvas");
    canvas.width = canvas.height = SENT_SIDE;
    const context = canvas.getContext("2d");
    context.fillStyle = "#fff";
    context.fillRect(0, 0, SENT_SIDE, SENT_SIDE);
    drawStrokes(context, this.#strokes, "#000");
    return await new Promise((resolve) => canvas.toBlob(resolve, "image/png"));
  }

  #replace(picture) {
    this.end();
    this.#strokes = [];
    this.#put(picture);
    this.#changed(true);
  }

  #put(picture) {
    this.#picture?.bitmap?.close();
    this.#picture = picture;
    this.#paintSoon();
  }

  #paintSoon() {
    if (this.#due) return;
    this.#due = true;
    requestAnimationFrame(() => this.#paint());
  }

  #paint() {
    this.#due = false;
    const context = this.#canvas.getContext("2d");
    const style = getComputedStyle(this.#canvas);
    this.#fit();
    context.clearRect(0, 0, this.#canvas.width, this.#canvas.height);
    if (this.#picture?.bitmap) drawBitmap(context, this.#picture.bitmap);
    drawStrokes(context, this.#strokes, style.color);
    if (this.#pen) drawPen(context, this.#pen, style);
  }

  /** Give the canvas every pixel that the screen has there. */
  #fit() {
    const side = Math.max(1, Math.round(this.#canvas.clientWidth * devicePixelRatio));
    if (this.#canvas.width !== side) this.#canvas.width = this.#canvas.height = side;
  }
}

function drawStrokes(context, strokes, ink) {
  const side = context.canvas.width;
  context.strokeStyle = ink;
  context.lineWidth = PEN_WIDTH * side;
  context.lineCap = context.lineJoin = "round";
  for (const stroke of strokes) {
    context.beginPath();
    traceStroke(context, stroke, side);
    context.stroke();
  }
}

/** Curves from middle to middle of the points: a quick hand's few points still make a round line. */
function traceStroke(context, points, side) {
  const last = points.at(-1);
  context.moveTo(points[0].x * side, points[0].y * side);
  points.slice(1, -1).forEach((point, index) => {
    const next = points[index + 2];
    const middle = { x: (point.x + next.x) / 2, y: (point.y + next.y) / 2 };
    context.quadraticCurveTo(point.x * side, point.y * side, middle.x * side, middle.y * side);
  });
  // A line of no length would not be drawn at all, and a dot is one.
  context.lineTo(last.x * side + 0.01, last.y * side);
}

/** Fit a picture into the paper; small ones, such as MNIST's own, show their pixels. */
function drawBitmap(context, bitmap) {
  const side = context.canvas.width;
  const scale = side / Math.max(bitmap.width, bitmap.height);
  const [width, height] = [bitmap.width * scale, bitmap.height * scale];
  context.imageSmoothingEnabled = scale < 4;
  context.imageSmoothingQuality = "high";
  context.drawImage(bitmap, (side - width) / 2, (side - height) / 2, width, height);
}

/** A ring of the pen's width with a cross, full when the pen is down, and edged with paper to be seen on ink. */
function drawPen(context, pen, style) {
  const [ink, paper] = [style.color, style.getPropertyValue("--paper")];
  const side = context.canvas.width;
  const radius = (PEN_WIDTH / 2) * side;
  const line = Math.max(1, side / 300);
  const shape = new Path2D();
  shape.arc(pen.x * side, pen.y * side, radius, 0, 2 * Math.PI);
  for (const [dx, dy] of [[1, 0], [0, 1], [-1, 0], [0, -1]]) {
    shape.moveTo(pen.x * side + radius * dx, pen.y * side + radius * dy);
    shape.lineTo(pen.x * side + 2.2 * radius * dx, pen.y * side + 2.2 * radius * dy);
  }
  for (const [width, colour] of [[3 * line, paper], [line, ink]]) {
    context.lineWidth = width;
    context.strokeStyle = colour;
    context.stroke(shape);
  }
  context.fillStyle = pen.down ? ink : "transparent";
  context.fill(shape);
}
