// Starts the runner with a function, outside of a jail, and speaks with it as the supervisor and the gateway do.
//
// STEADING_BUN and STEADING_NODE name the two runtimes. `node --test crates/functions/runtime/tests/*.test.mjs`

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { createHash, randomBytes } from "node:crypto";
import { once } from "node:events";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import http from "node:http";
import net from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";

const PARTS = {
  bun: ["logs", "clients", "socket", "runner", "boot"],
  node: ["logs", "clients", "socket", "rfc6455", "node", "runner", "boot"],
};
const home = mkdtempSync(join(tmpdir(), "fn-runner-"));
process.on("exit", () => rmSync(home, { recursive: true, force: true }));
function needed(name) {
  const path = process.env[name];
  if (!path) throw new Error(`${name} names the runtime's program`);
  return path;
}

/** The runner's program for one of the runtimes. */
function runner(runtime) {
  const path = join(home, `${runtime}.mjs`);
  writeFileSync(path, PARTS[runtime].map((part) => readFileSync(new URL(`../${part}.mjs`, import.meta.url))).join(""));
  return path;
}

export const runtimes = {
  bun: [needed("STEADING_BUN"), "--no-install", "--no-env-file", "--no-macros", runner("bun")],
  node: [needed("STEADING_NODE"), "--enable-source-maps", "--disable-warning=ExperimentalWarning", runner("node")],
};

/** One check on both runtimes. */
export function both(name, check) {
  for (const runtime of Object.keys(runtimes)) {
    test(`${runtime}: ${name}`, { timeout: 60_000 }, async () => {
      const started = [];
      const start = (source, options) => {
        const instance = new Instance(runtime, source, options);
        started.push(instance);
        return instance;
      };
      try {
        await check({ runtime, start, up: async (...given) => (await start(...given).up()) });
      } finally {
        for (const instance of started) await instance.kill();
      }
    });
  }
}

/** Waits until `look` gives something. */
export async function until(look, what = "what was waited for", ms = 15_000) {
  for (const end = Date.now() + ms; Date.now() < end; await new Promise((go) => setTimeout(go, 5))) {
    const found = await look();
    if (found) return found;
  }
  throw new Error(`${what} has not come`);
}

export class Instance {
  ready = null;
  failed = null;
  logs = [];
  raw = [];

  /** `source` is a module's text, or files by name of which the first is the entry. */
  constructor(runtime, source, { env = {}, limits = {}, meta = {}, platform, assignment, stdin, surroundings } = {}) {
    this.dir = mkdtempSync(join(home, "fn-"));
    const files = typeof source === "string" ? { "index.mjs": source } : source;
    for (const [name, text] of Object.entries(files)) writeFileSync(join(this.dir, name), text);
    this.sock = join(this.dir, "fn.sock");
    this.mark = randomBytes(12).toString("hex");
    const [program, ...args] = runtimes[runtime];
    this.process = spawn(program, args, { stdio: ["pipe", "pipe", "pipe"], cwd: "/", env: { PATH: "/usr/bin:/bin", ...surroundings } });
    const told = {
      entry: join(this.dir, Object.keys(files)[0]),
      sock: this.sock,
      mark: this.mark,
      env,
      limits,
      meta: { env: "shop", function: "hello", version: "fnv_1", url: "https://shop.example", ...meta },
      platform,
      ...assignment,
    };
    this.process.stdin.on("error", () => {});
    this.process.stdin.end(stdin ?? JSON.stringify(told));
    this.exit = new Promise((done) => this.process.on("close", (code, signal) => done(signal ?? code)));
    this.#listen();
    this.stderr = "";
    this.process.stderr.on("data", (bytes) => (this.stderr += bytes));
  }

  #listen() {
    let rest = "";
    const frame = `\x1e${this.mark} `;
    this.process.stdout.setEncoding("utf8").on("data", (text) => {
      const lines = (rest + text).split("\n");
      rest = lines.pop();
      for (const line of lines) {
        const at = line.indexOf(frame);
        if (at !== 0 && line !== "") this.raw.push(at < 0 ? line : line.slice(0, at));
        if (at < 0) continue;
        const message = JSON.parse(line.slice(at + frame.length));
        if (message.ready) this.ready = message.ready;
        else if (message.failed) this.failed = message.failed;
        else this.logs.push({ ...message, bytes: Buffer.byteLength(line) });
      }
    });
    this.process.stdout.on("end", () => rest && this.raw.push(rest));
  }

  async up() {
    await until(() => this.ready || this.failed || this.process.exitCode !== null, "the function");
    assert.equal(this.failed, null);
    assert.ok(this.ready, `no word from the runner: ${this.stderr}`);
    return this;
  }

  /** A log line whose text `part` finds. */
  log(part) {
    const found = () => this.logs.find(({ text }) => (part instanceof RegExp ? part.test(text) : text.includes(part)));
    return until(found, `the log line ${part}`);
  }

  /** A request as the gateway makes it; the answer comes as a stream with `open`, else whole. */
  async ask(path = "/", { kind, id = "req_1", method = "GET", headers = {}, body, open, trigger, caller, url, deadline, signal } = {}) {
    const said = { kind, request: id, deadline, url, caller: caller && JSON.stringify(caller), trigger: trigger && JSON.stringify(trigger) };
    const reserved = Object.entries(said).filter(([, value]) => value !== undefined).map(([name, value]) => [`steading-fn-${name}`, value]);
    const request = http.request({
      socketPath: this.sock, path, method, signal, agent: false,
      headers: { host: "shop.example", ...Object.fromEntries(reserved), ...headers },
    });
    if (typeof body === "function") body(request);
    else request.end(body);
    const [answer] = await once(request, "response");
    if (open) return answer;
    const chunks = [];
    for await (const chunk of answer) chunks.push(chunk);
    const bytes = Buffer.concat(chunks);
    const json = () => JSON.parse(bytes.toString());
    return { status: answer.statusCode, headers: answer.headers, raw: answer.rawHeaders, text: bytes.toString(), bytes, json };
  }

  ping() {
    return this.ask("/", { kind: "ping", id: undefined }).then((answer) => answer.json());
  }

  async kill() {
    this.process.kill("SIGKILL");
    return this.exit;
  }
}

/** The client's end of a WebSocket, which can also break the protocol. */
export class Socket {
  frames = [];
  closed = false;
  /** The one that was opened last, also while its handshake goes on. */
  static last = null;
  #rest = Buffer.alloc(0);

  static async open(instance, path = "/", headers = {}) {
    const socket = (Socket.last = new Socket());
    const key = randomBytes(16).toString("base64");
    const lines = { host: "shop.example", upgrade: "websocket", connection: "Upgrade", "sec-websocket-version": "13", "sec-websocket-key": key, "steading-fn-request": "req_ws", ...headers };
    socket.stream = net.connect(instance.sock);
    socket.stream.on("error", () => {});
    socket.stream.on("close", () => (socket.closed = true));
    socket.stream.write(`GET ${path} HTTP/1.1\r\n${Object.entries(lines).filter(([, value]) => value !== null).map(([name, value]) => `${name}: ${value}`).join("\r\n")}\r\n\r\n`);
    socket.stream.on("data", (bytes) => socket.#take(bytes));
    await until(() => socket.head ?? socket.closed, "the handshake");
    if (socket.head.startsWith("HTTP/1.1 101")) {
      const wanted = createHash("sha1").update(`${key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11`).digest("base64");
      assert.match(socket.head.toLowerCase(), new RegExp(`sec-websocket-accept: ${wanted.replace(/[+/]/g, "\\$&").toLowerCase()}`));
    }
    return socket;
  }

  #take(bytes) {
    this.#rest = Buffer.concat([this.#rest, bytes]);
    if (this.head === undefined) {
      const at = this.#rest.indexOf("\r\n\r\n");
      if (at < 0) return;
      this.head = this.#rest.subarray(0, at).toString();
      this.#rest = this.#rest.subarray(at + 4);
    }
    for (;;) {
      const rest = this.#rest;
      if (rest.length < 2) return;
      const short = rest[1] & 127;
      const start = short < 126 ? 2 : short === 126 ? 4 : 10;
      if (rest.length < start) return;
      const length = short < 126 ? short : short === 126 ? rest.readUInt16BE(2) : Number(rest.readBigUInt64BE(2));
      if (rest.length < start + length) return;
      const data = rest.subarray(start, start + length);
      this.frames.push({ opcode: rest[0] & 15, final: rest[0] >= 128, masked: rest[1] >= 128, data, text: data.toString() });
      this.#rest = rest.subarray(start + length);
    }
  }

  /** A frame; what is not said is as it should be. */
  frame(opcode, data, { final = true, masked = true, reserved = 0, length } = {}) {
    const payload = Buffer.from(data);
    const size = length ?? payload.length;
    const head = Buffer.alloc(size < 126 ? 2 : size < 65536 ? 4 : 10);
    head[0] = (final ? 0x80 : 0) | reserved | opcode;
    head[1] = (masked ? 0x80 : 0) | (size < 126 ? size : size < 65536 ? 126 : 127);
    if (head.length === 4) head.writeUInt16BE(size, 2);
    if (head.length === 10) head.writeBigUInt64BE(BigInt(size), 2);
    const mask = randomBytes(4);
    this.stream.write(masked ? Buffer.concat([head, mask, payload.map((byte, i) => byte ^ mask[i & 3])]) : Buffer.concat([head, payload]));
  }

  text(text) {
    this.frame(1, text);
  }

  close(code = 1000, reason = "") {
    this.frame(8, Buffer.concat([Buffer.from([code >> 8, code & 255]), Buffer.from(reason)]));
  }

  /** The next frame of the kind. */
  next(opcode) {
    return until(() => {
      const at = this.frames.findIndex((frame) => frame.opcode === opcode);
      return at >= 0 && this.frames.splice(at, 1)[0];
    }, `a frame of kind ${opcode}`);
  }

  /** The code that the other end closes with. */
  async closing() {
    await until(() => this.closed || this.frames.some(({ opcode }) => opcode === 8), "the close");
    return this.frames.find(({ opcode }) => opcode === 8)?.data.readUInt16BE(0) ?? 1006;
  }
}

/** Answers on a socket of its own in the platform's place, and keeps what it was asked. */
export async function platform(answer) {
  const sock = join(mkdtempSync(join(home, "platform-")), "platform.sock");
  const asked = [];
  const server = http.createServer(async (request, response) => {
    const chunks = [];
    for await (const chunk of request) chunks.push(chunk);
    const text = Buffer.concat(chunks).toString();
    const call = { method: request.method, url: request.url, headers: request.headers, body: text };
    asked.push(call);
    await answer(call, response);
  });
  await new Promise((done) => server.listen(sock, done));
  server.unref();
  return { sock, asked };
}
