// The server's end of a WebSocket, with the browser's events.

/** Set from the assignment: the largest message that comes in, and the most bytes that wait to go out. */
const frames = { message: 1 << 20, waiting: 4 << 20 };
/** A response with this header, made by `ctx.upgrade`, is where a request becomes a WebSocket. */
const UPGRADE = "steading-fn-upgrade";
/** A peer is asked whether it is there after half of this long, and given up after all of it. */
const SILENCE_MS = 60_000;

/** A WebSocket as browsers have it. Until the response is given back, what is sent waits. */
class ServerSocket extends EventTarget {
  static CONNECTING = 0;
  static OPEN = 1;
  static CLOSING = 2;
  static CLOSED = 3;
  #context;
  #link = null;
  #early = [];
  #earlyBytes = 0;
  #guards = new WeakMap();
  readyState = 0;
  binaryType = "blob";
  extensions = "";
  protocol = "";
  url = "";
  onopen = null;
  onmessage = null;
  onclose = null;
  onerror = null;

  constructor(context, url, protocol) {
    super();
    this.#context = context;
    this.url = url;
    this.protocol = protocol;
  }

  get CONNECTING() {
    return 0;
  }
  get OPEN() {
    return 1;
  }
  get CLOSING() {
    return 2;
  }
  get CLOSED() {
    return 3;
  }

  get bufferedAmount() {
    return this.#link ? this.#link.waiting() : this.#earlyBytes;
  }

  send(data) {
    if (this.readyState > 1) return;
    if (data instanceof Blob) return void data.arrayBuffer().then((bytes) => this.send(bytes));
    const isText = typeof data === "string" || !(data instanceof ArrayBuffer || ArrayBuffer.isView(data));
    const bytes = isText ? String(data) : ArrayBuffer.isView(data) ? Buffer.from(data.buffer, data.byteOffset, data.byteLength) : Buffer.from(data);
    if (this.#link) return this.#link.send(bytes);
    this.#earlyBytes += bytes.length;
    if (this.#earlyBytes > frames.waiting) throw new RangeError(`more than ${frames.waiting} bytes wait before the socket is open`);
    this.#early.push(isText ? bytes : Buffer.from(bytes));
  }

  close(code = 1000, reason = "") {
    if (code !== 1000 && !(code >= 3000 && code <= 4999)) throw new RangeError(`not a code to close with: ${code} (1000, or 3000 to 4999)`);
    if (Buffer.byteLength(String(reason)) > 123) throw new SyntaxError("the reason of a close has at most 123 bytes");
    this.end(code, String(reason));
  }

  /** Closes also with codes that are not the function's to say. */
  end(code, reason) {
    if (this.readyState > 1) return;
    this.readyState = 2;
    if (this.#link) this.#link.close(code, reason);
    else this.closed(1006, "");
  }

  /** The connection is there. `link` has `send`, `close` and `waiting`. */
  opened(link) {
    this.#link = link;
    sockets.add(this);
    if (this.readyState > 1) return link.close(1000, "");
    this.readyState = 1;
    for (const data of this.#early.splice(0)) link.send(data);
    this.#tell(new Event("open"));
  }

  /** A message has come: text, or an ArrayBuffer. */
  message(data) {
    if (this.readyState !== 1) return;
    const shown = typeof data === "string" || this.binaryType === "arraybuffer" ? data : new Blob([data]);
    this.#tell(new MessageEvent("message", { data: shown }));
  }

  closed(code, reason) {
    if (this.readyState === 3) return;
    this.readyState = 3;
    sockets.delete(this);
    if (code === 1006) this.#tell(new Event("error"));
    this.#tell(new CloseEvent("close", { code, reason, wasClean: code !== 1006 }));
  }

  #tell(event) {
    requests.run(this.#context, () => {
      this.dispatchEvent(event);
      this.#guarded(this[`on${event.type}`])?.call(this, event);
    });
  }

  /** A listener that throws ends its own connection and no other one. */
  #guarded(listener) {
    const call = typeof listener === "function" ? listener : listener?.handleEvent?.bind(listener);
    if (!call) return null;
    const failed = (error) => {
      log("error", `a listener of a WebSocket failed: ${inspected(error)}`, this.#context.requestId);
      this.end(1011, "the function failed");
    };
    return function (event) {
      try {
        call.call(this, event)?.then?.(undefined, failed);
      } catch (error) {
        failed(error);
      }
    };
  }

  addEventListener(type, listener, options) {
    if (!listener) return;
    let guard = this.#guards.get(listener);
    if (!guard) this.#guards.set(listener, (guard = this.#guarded(listener)));
    super.addEventListener(type, guard, options);
  }

  removeEventListener(type, listener, options) {
    super.removeEventListener(type, this.#guards.get(listener) ?? listener, options);
  }
}

/** The sockets that are open. */
const sockets = new Set();
