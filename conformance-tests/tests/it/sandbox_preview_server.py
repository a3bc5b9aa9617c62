"""Shows what it is asked, notes it in `seen`, and tries for the cookie that is not its own."""
import base64, hashlib, http.server, json, sys, time


PAGE = """<!doctype html>
<link rel="icon" href="data:,">
<title>inside</title>
<h1>inside</h1>
<script>
(async () => {
  const fetched = (await fetch("/data")).status;
  const socket = new WebSocket(location.origin.replace("http", "ws") + "/socket");
  const heard = await new Promise((done) => {
    socket.onmessage = (event) => done(event.data);
    socket.onerror = () => done("refused");
  });
  const names = performance.getEntries().map((entry) => entry.name).join(" ");
  const told = { fetched, heard, at: location.href, referrer: document.referrer, cookie: document.cookie, names };
  parent.postMessage(told, "*");
  document.querySelector("h1").textContent = "inside " + JSON.stringify(told);
})();
</script>
"""


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self):
        asked = json.dumps({"method": self.command, "path": self.path, "headers": dict(self.headers.items())})
        with open("seen", "a") as seen:
            seen.write(asked + "\n")
        if self.headers.get("upgrade"):
            return self.socket()
        if self.path == "/events":
            return self.events()
        kind, body = "application/json", asked
        if self.path == "/page" or self.path == "/":
            kind, body = "text/html", PAGE
        body = body.encode()
        self.send_response(200)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body)))
        for cookie in ["app=1", "__Host-steading-preview=x; Secure; Path=/", "steading-preview=x; Path=/"]:
            self.send_header("set-cookie", cookie)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def socket(self):
        key = self.headers.get("sec-websocket-key", "") + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
        self.send_response(101)
        self.send_header("connection", "upgrade")
        self.send_header("upgrade", "websocket")
        self.send_header("sec-websocket-accept", base64.b64encode(hashlib.sha1(key.encode()).digest()).decode())
        self.end_headers()
        while True:
            self.wfile.write(b"\x81\x05hello")
            time.sleep(0.2)

    def events(self):
        self.close_connection = True
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.end_headers()
        while True:
            self.wfile.write(b"data: x\n\n")
            time.sleep(0.2)

    def log_message(self, *_):
        pass

    do_GET = do_HEAD = do_POST = do_OPTIONS = answer


http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
