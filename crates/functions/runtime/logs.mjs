// What a function says: `console`, its output streams and its last words, as framed lines on fd 1.

import { AsyncLocalStorage } from "node:async_hooks";

/** Whether this is Bun; everything else is Node. */
const isBun = typeof Bun !== "undefined";
const builtin = (name) => process.getBuiltinModule(`node:${name}`);
// Taken before tenant code runs: a library that replaces them for its tests changes nothing here.
const { stringify } = JSON;
const now = Date.now;
const exit = process.exit.bind(process);

/** The request that the running code belongs to: its `Context`. */
const requests = new AsyncLocalStorage();

/** The most bytes of one line, its frame included. */
const LINE_BYTES = 8192;
/** Set from the assignment: what lines of ours begin with, and how many bytes of them a second may have. */
const voice = { mark: "", perSecond: 1 << 20, left: 1 << 20, since: 0, dropped: 0 };

/** Bun's own `console.log` writes a lone string as it is and at once; `node:fs` would cost it milliseconds. */
const put = isBun ? console.log.bind(console) : writer(builtin("fs").writeSync);

function writer(writeSync) {
  const idle = new Int32Array(new SharedArrayBuffer(4));
  return (line) => {
    let bytes = Buffer.from(`${line}\n`);
    // A child that shares the pipe may have made it non-blocking.
    for (let tries = 0; bytes.length > 0 && tries < 2000; tries++) {
      try {
        bytes = bytes.subarray(writeSync(1, bytes));
      } catch (error) {
        if (error.code !== "EAGAIN") return;
        Atomics.wait(idle, 0, 0, 1);
      }
    }
  };
}

/** One line of ours. The mark keeps what tenant code writes to fd 1 by itself from being taken for it. */
function say(message) {
  put(`\x1e${voice.mark} ${stringify(message)}`);
}

/** One line of the log, cut to what a line may have, or counted where there are too many. */
function log(level, text, rid = requests.getStore()?.requestId) {
  const t = now();
  if (t - voice.since >= 1000) {
    const { dropped } = voice;
    Object.assign(voice, { since: t, left: voice.perSecond, dropped: 0 });
    if (dropped > 0) {
      const said = `${dropped} lines were not logged: more than ${voice.perSecond} bytes in a second (limit log_bytes_per_s)`;
      say({ t, level: "warn", text: said });
    }
  }
  if (voice.left <= 0) return void voice.dropped++;
  const room = LINE_BYTES - voice.mark.length - 3;
  let kept = text.length > LINE_BYTES ? text.slice(0, LINE_BYTES) : text;
  let line;
  let size;
  for (;;) {
    const cut = kept.length < text.length ? text.length - kept.length : undefined;
    line = stringify({ t, level, rid: rid || undefined, text: kept, cut });
    size = Buffer.byteLength(line);
    if (size <= room) break;
    kept = kept.slice(0, Math.max(0, Math.floor((kept.length * (room - 100)) / size) - 1));
  }
  voice.left -= size;
  put(`\x1e${voice.mark} ${line}`);
}

/** What `console.log` would print of its arguments. */
function words(args) {
  const [first] = args;
  if (args.length === 1 && typeof first === "string") return first;
  const plain = typeof first !== "string" || !first.includes("%");
  if (plain && args.every((arg) => typeof arg !== "object" && typeof arg !== "function" && typeof arg !== "symbol" && typeof arg !== "bigint")) {
    return args.join(" ");
  }
  // Loading `node:util` costs Bun more than a cold start may; errors look better with it.
  if (isBun && plain && !args.some((arg) => arg instanceof Error)) {
    return args.map((arg) => (typeof arg === "string" ? arg : Bun.inspect(arg))).join(" ");
  }
  return builtin("util").format(...args);
}

/** An error for people: its stack in the function's own source, what it was caused by, what it carries. */
function inspected(error) {
  try {
    return error instanceof Error ? builtin("util").inspect(error) : `thrown: ${words([error])}`;
  } catch {
    return "an error that cannot be shown";
  }
}

/** An error for programs. */
function described(error) {
  const isError = error instanceof Error;
  const field = (name) => (typeof error[name] === "string" ? error[name] : undefined);
  if (!isError) return { name: "Error", message: `thrown: ${words([error])}`.slice(0, 2000) };
  return { name: field("name"), message: field("message")?.slice(0, 2000), stack: field("stack")?.slice(0, 8000) };
}

/** Makes `console` and the two output streams speak in lines of ours. */
function captureOutput() {
  let depth = 0;
  const levels = { log: "info", info: "info", debug: "debug", warn: "warn", error: "error" };
  for (const [name, level] of Object.entries(levels)) {
    console[name] = (...args) => log(level, "  ".repeat(depth) + words(args));
  }
  console.group = console.groupCollapsed = (...args) => {
    if (args.length > 0) console.log(...args);
    depth++;
  };
  console.groupEnd = () => void (depth = Math.max(0, depth - 1));
  let others = null;
  const sink = (level) => ({ write: (text) => log(level, text.replace(/\n$/, "")) });
  for (const name of ["table", "dir", "dirxml", "count", "countReset", "time", "timeLog", "timeEnd", "trace", "assert"]) {
    console[name] = (...args) => {
      others ??= new (builtin("console").Console)({ stdout: sink("info"), stderr: sink("error"), ignoreErrors: false });
      others[name](...args);
    };
  }
  const stream = (name, fd, level) => {
    let made = null;
    const real = () => (made ??= output(fd, level));
    // To define a property Bun makes its own stream first, which costs more than the whole start.
    if (isBun) process[name] = lazy(real);
    else Object.defineProperty(process, name, { configurable: true, enumerable: true, get: real });
  };
  stream("stdout", 1, "info");
  stream("stderr", 2, "error");
}

/** An object that is made when somebody looks at it. */
function lazy(real) {
  const traps = ["get", "set", "has", "ownKeys", "getPrototypeOf", "getOwnPropertyDescriptor", "defineProperty", "deleteProperty"];
  return new Proxy({}, Object.fromEntries(traps.map((trap) => [trap, (_, ...rest) => Reflect[trap](real(), ...rest)])));
}

/** Stands in for an output stream of the process: each whole line becomes one of the log. */
function output(fd, level) {
  const { Writable } = builtin("stream");
  let rest = "";
  const flush = () => {
    if (rest !== "") log(level, rest);
    rest = "";
  };
  process.on("exit", flush);
  const decoder = new TextDecoder();
  const made = new Writable({
    decodeStrings: false,
    write(chunk, _encoding, done) {
      const lines = (rest + (typeof chunk === "string" ? chunk : decoder.decode(chunk, { stream: true }))).split("\n");
      rest = lines.pop();
      for (const line of lines) log(level, line);
      if (rest.length > LINE_BYTES) flush();
      done();
    },
  });
  return Object.assign(made, { fd, isTTY: false });
}
