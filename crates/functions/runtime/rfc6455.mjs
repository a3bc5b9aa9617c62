// WebSockets on a stream of Node's, by RFC 6455; Bun brings its own.

/** How long a peer has to answer a close. */
const CLOSING_MS = 5_000;

/** RFC 6455 on a stream of Node's, after the handshake; no extensions. */
function speakWebSocket(stream, head, socket) {
  let chunks = [];
  let have = 0;
  let need = 2;
  let frame = null;
  let parts = [];
  let partsBytes = 0;
  let kind = 0;
  let saidClose = false;
  let ended = null;
  let heard = now();
  const utf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

  const watch = setInterval(() => {
    const silent = now() - heard;
    if (silent >= SILENCE_MS) stream.destroy();
    else if (silent >= SILENCE_MS / 2) write(9, Buffer.alloc(0));
  }, SILENCE_MS / 4);
  watch.unref();

  function write(opcode, payload) {
    if (stream.destroyed || stream.writableEnded) return;
    if (stream.writableLength + payload.length > frames.waiting && opcode !== 8) {
      // The peer does not read: nothing said to it would arrive.
      log("warn", `a WebSocket was ended: more than ${frames.waiting} bytes wait for a peer that does not read (limit socket_buffer_bytes)`);
      ended ??= { code: 1006, reason: "" };
      return void stream.destroy();
    }
    const { length } = payload;
    const header = Buffer.allocUnsafe(length < 126 ? 2 : length < 65536 ? 4 : 10);
    header[0] = 0x80 | opcode;
    header[1] = length < 126 ? length : length < 65536 ? 126 : 127;
    if (header.length === 4) header.writeUInt16BE(length, 2);
    if (header.length === 10) header.writeBigUInt64BE(BigInt(length), 2);
    stream.cork();
    stream.write(header);
    if (length > 0) stream.write(payload);
    stream.uncork();
  }

  function close(code, reason) {
    if (saidClose) return;
    saidClose = true;
    const payload = code === 1005 ? Buffer.alloc(0) : Buffer.concat([Buffer.from([code >> 8, code & 255]), Buffer.from(reason)]);
    write(8, payload);
    setTimeout(() => stream.destroy(), CLOSING_MS).unref();
  }

  /** The peer breaks the protocol, or a limit: it is told why, and nothing more is read. */
  function refuse(code, reason) {
    ended ??= { code, reason };
    close(code, reason);
    chunks = parts = [];
    need = Infinity;
    stream.end();
  }

  function take(size) {
    const bytes = chunks.length === 1 ? chunks[0] : Buffer.concat(chunks, have);
    have -= size;
    chunks = have > 0 ? [bytes.subarray(size)] : [];
    return bytes.subarray(0, size);
  }

  function header() {
    const [first, second] = take(2);
    const opcode = first & 15;
    const final = (first & 0x80) !== 0;
    const length = second & 0x7f;
    if (first & 0x70) return refuse(1002, "reserved bits are set");
    if (!(second & 0x80)) return refuse(1002, "frames to a server are masked");
    if (opcode > 2 && (opcode < 8 || opcode > 10)) return refuse(1002, "no such kind of frame");
    if (opcode >= 8 && (!final || length > 125)) return refuse(1002, "a control frame is whole and short");
    if (opcode === 0 ? kind === 0 : opcode < 8 && kind !== 0) return refuse(1002, "a continuation out of place");
    frame = { opcode, final, length };
    if (length === 126) need = 2;
    else if (length === 127) need = 8;
    else sized(length);
  }

  function sized(length) {
    if (frame.opcode < 8 && partsBytes + length > frames.message) {
      return refuse(1009, `a message has at most ${frames.message} bytes`);
    }
    frame.length = length;
    frame.sized = true;
    need = 4 + length;
  }

  function payload() {
    const bytes = take(need);
    const data = Buffer.allocUnsafe(frame.length);
    for (let i = 0; i < data.length; i++) data[i] = bytes[4 + i] ^ bytes[i & 3];
    const { opcode, final } = frame;
    frame = null;
    need = 2;
    if (opcode === 9) return void (saidClose || write(10, data));
    if (opcode === 10) return;
    if (opcode === 8) return heardClose(data);
    if (opcode !== 0) kind = opcode;
    // Without bytes a fragment is nothing to keep: there may be any number of them.
    if (data.length > 0) parts.push(data);
    partsBytes += data.length;
    // Small fragments cost more to keep than their bytes.
    if (parts.length > 1024) parts = [Buffer.concat(parts, partsBytes)];
    if (!final) return;
    const whole = parts.length === 1 ? parts[0] : Buffer.concat(parts, partsBytes);
    const isText = kind === 1;
    parts = [];
    partsBytes = kind = 0;
    if (!isText) return socket.message(whole.buffer.slice(whole.byteOffset, whole.byteOffset + whole.length));
    let text;
    try {
      text = utf8.decode(whole);
    } catch {
      return refuse(1007, "text is UTF-8");
    }
    socket.message(text);
  }

  function heardClose(data) {
    const code = data.length >= 2 ? data.readUInt16BE(0) : 1005;
    const known = code === 1005 ? data.length === 0 : (code >= 1000 && code <= 1014 && ![1004, 1005, 1006].includes(code)) || (code >= 3000 && code <= 4999);
    if (!known) return refuse(1002, "no such code to close with");
    let reason;
    try {
      reason = utf8.decode(data.subarray(2));
    } catch {
      return refuse(1007, "text is UTF-8");
    }
    ended ??= { code, reason };
    if (socket.readyState === 1) socket.readyState = 2;
    close(code, "");
    need = Infinity;
    stream.end();
  }

  function read(chunk) {
    heard = now();
    if (need === Infinity) return;
    chunks.push(chunk);
    have += chunk.length;
    while (have >= need) {
      if (!frame) header();
      else if (frame.sized) payload();
      else sized(need === 2 ? take(2).readUInt16BE(0) : Number(take(8).readBigUInt64BE(0)));
    }
  }

  stream.setTimeout(0);
  stream.on("data", read);
  stream.on("error", () => {});
  stream.on("end", () => stream.end());
  stream.on("close", () => {
    clearInterval(watch);
    socket.closed(ended?.code ?? 1006, ended?.reason ?? "");
  });
  socket.opened({
    send: (data) => write(typeof data === "string" ? 1 : 2, typeof data === "string" ? Buffer.from(data) : data),
    close,
    waiting: () => stream.writableLength,
  });
  if (head.length > 0) read(head);
}

/** What answers the handshake of a request that `ctx.upgrade` has taken; null where the request does not keep to it. */
function acceptance(headers) {
  const key = headers["sec-websocket-key"] ?? "";
  if (headers["sec-websocket-version"] !== "13" || !/^[A-Za-z0-9+/]{22}==$/.test(key)) return null;
  return builtin("crypto").createHash("sha1").update(`${key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11`).digest("base64");
}
