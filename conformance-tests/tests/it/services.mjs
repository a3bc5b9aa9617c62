// A WebSocket server with nothing but what Node has: it says back what it hears, with who has opened the socket.
import { createHash } from "node:crypto";
import http from "node:http";

const KEY = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

const server = http.createServer((request, response) => response.end("hello"));
server.on("upgrade", (request, socket) => {
  const accept = createHash("sha1").update(request.headers["sec-websocket-key"] + KEY).digest("base64");
  socket.write(
    `HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ${accept}\r\n\r\n`,
  );
  const caller = JSON.parse(request.headers["steading-caller"]);
  let waiting = Buffer.alloc(0);
  socket.on("data", (data) => {
    waiting = Buffer.concat([waiting, data]);
    // Short masked frames are all that is sent here.
    while (waiting.length >= 6 && waiting.length >= 6 + (waiting[1] & 127)) {
      const length = waiting[1] & 127;
      const mask = waiting.subarray(2, 6);
      const payload = Buffer.from(waiting.subarray(6, 6 + length).map((byte, at) => byte ^ mask[at % 4]));
      const opcode = waiting[0] & 15;
      waiting = waiting.subarray(6 + length);
      if (opcode === 8) return socket.end();
      const said = Buffer.from(JSON.stringify({ answer: JSON.parse(payload.toString()).ask, caller }));
      const head = said.length < 126 ? [0x81, said.length] : [0x81, 126, said.length >> 8, said.length & 255];
      socket.write(Buffer.concat([Buffer.from(head), said]));
    }
  });
  socket.on("error", () => socket.destroy());
});
server.listen(process.env.PORT);
