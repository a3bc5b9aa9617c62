#!/usr/bin/env python3
"""Measures what the runner costs: a cold start until the first answer, and a warm request, in CPU and wall time.

    STEADING_BUN=… STEADING_NODE=… python3 crates/functions/benches/runner.py [ENTRY.mjs…]

CPU of a cold start is all that the process has used when it has answered once; of a request, what a thousand of them
have used, by connection kept open. `bare` is the runtime's own server without the runner. Further entries are bundles to
start cold. Other load makes wall times long; the least of CPU is what compares.
"""

import json
import os
import pathlib
import shutil
import socket
import subprocess
import sys
import tempfile
import time

PARTS = {
    "bun": ["logs", "clients", "socket", "runner", "boot"],
    "node": ["logs", "clients", "socket", "rfc6455", "node", "runner", "boot"],
}
RUNTIME = pathlib.Path(__file__).parent.parent / "runtime"
ASK = (
    b"GET /hello?x=1 HTTP/1.1\r\nhost: shop.example\r\naccept: */*\r\nuser-agent: bench\r\nsteading-fn-kind: http\r\n"
    b"steading-fn-request: req_019\r\nsteading-fn-deadline: 30000\r\nsteading-fn-url: https://shop.example/hello?x=1\r\n\r\n"
)
TRIVIAL = "export default { fetch: () => new Response('hello') };"
JSON = "export default { fetch: (request, env, ctx) => Response.json({ url: request.url, agent: request.headers.get('user-agent'), id: ctx.requestId }) };"
BARE = {
    "bun": "const { sock } = JSON.parse(await Bun.stdin.text()); Bun.serve({ unix: sock, fetch: () => new Response('hello') });",
    "node": "import http from 'node:http'; import { readFileSync } from 'node:fs'; const { sock } = JSON.parse(readFileSync(0)); http.createServer((i, o) => o.end('hello')).listen(sock);",
}


def cpu_ms(pid):
    """Time that the process has run, by the scheduler; children are none."""
    total = 0
    for task in os.listdir(f"/proc/{pid}/task"):
        try:
            total += int(pathlib.Path(f"/proc/{pid}/task/{task}/schedstat").read_text().split()[0])
        except FileNotFoundError:
            pass
    return total / 1e6


def start(home, program, args, entry):
    directory = tempfile.mkdtemp(dir=home)
    sock = f"{directory}/fn.sock"
    begun = time.perf_counter()
    child = subprocess.Popen([*program, *args], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, cwd=directory)
    told = {"entry": entry, "sock": sock, "mark": "m" * 24, "env": {"A": "b"}, "limits": {}, "meta": {"url": "https://shop.example"}}
    child.stdin.write(json.dumps(told).encode())
    child.stdin.close()
    connection = socket.socket(socket.AF_UNIX)
    while True:
        try:
            connection.connect(sock)
            break
        except OSError:
            if child.poll() is not None:
                raise SystemExit(f"{program} has ended: {child.returncode}")
            time.sleep(0.0002)
    ask(connection)
    return child, connection, (time.perf_counter() - begun) * 1000


def ask(connection):
    connection.sendall(ASK)
    answer = b""
    while True:
        answer += connection.recv(65536)
        head, found, body = answer.partition(b"\r\n\r\n")
        if not found:
            continue
        lower = head.lower()
        if b"content-length: " in lower and len(body) < int(lower.split(b"content-length: ")[1].split(b"\r\n")[0]):
            continue
        assert head.startswith(b"HTTP/1.1 "), head
        return


def cold(home, name, program, args, entry, runs=15):
    cpu, wall = [], []
    for _ in range(runs):
        child, connection, took = start(home, program, args, entry)
        cpu.append(cpu_ms(child.pid))
        wall.append(took)
        connection.close()
        child.kill()
        child.wait()
    cpu.sort()
    wall.sort()
    print(f"{name:44} cold  cpu min {cpu[0]:6.1f} p50 {cpu[runs // 2]:6.1f} ms   wall min {wall[0]:6.1f} p50 {wall[runs // 2]:6.1f} ms", flush=True)


def warm(home, name, program, args, entry, count=20000):
    child, connection, _ = start(home, program, args, entry)
    for _ in range(3000):
        ask(connection)
    used = []
    walls = []
    for _ in range(count // 1000):
        before = cpu_ms(child.pid)
        begun = time.perf_counter()
        for _ in range(1000):
            ask(connection)
        used.append(cpu_ms(child.pid) - before)
        walls.append((time.perf_counter() - begun) * 1000)
    rss = int(pathlib.Path(f"/proc/{child.pid}/statm").read_text().split()[1]) * 4096 / 2**20
    used.sort()
    walls.sort()
    print(f"{name:44} warm  cpu min {used[0]:6.1f} p50 {used[len(used) // 2]:6.1f} us   wall p50 {walls[len(walls) // 2]:6.1f} us   rss {rss:.0f} MiB", flush=True)
    connection.close()
    child.kill()
    child.wait()


def main():
    home = tempfile.mkdtemp(prefix="fn-bench-")
    programs = {
        "bun": [os.environ["STEADING_BUN"], "--no-install", "--no-env-file", "--no-macros"],
        "node": [os.environ["STEADING_NODE"], "--enable-source-maps", "--disable-warning=ExperimentalWarning"],
    }
    entries = {}
    for name, text in {"trivial": TRIVIAL, "json": JSON}.items():
        entries[name] = str(pathlib.Path(home, f"{name}.mjs"))
        pathlib.Path(entries[name]).write_text(text)
    try:
        for runtime, program in programs.items():
            runner = pathlib.Path(home, f"runner-{runtime}.mjs")
            runner.write_bytes(b"".join((RUNTIME / f"{part}.mjs").read_bytes() for part in PARTS[runtime]))
            bare = pathlib.Path(home, f"bare-{runtime}.mjs")
            bare.write_text(BARE[runtime])
            cold(home, f"{runtime} bare", program, [str(bare)], "")
            cold(home, f"{runtime} runner, trivial", program, [str(runner)], entries["trivial"])
            for entry in sys.argv[1:]:
                cold(home, f"{runtime} runner, {pathlib.Path(entry).name}", program, [str(runner)], os.path.abspath(entry))
            warm(home, f"{runtime} bare", program, [str(bare)], "")
            warm(home, f"{runtime} runner, trivial", program, [str(runner)], entries["trivial"])
            warm(home, f"{runtime} runner, json of the request", program, [str(runner)], entries["json"])
    finally:
        shutil.rmtree(home, ignore_errors=True)


main()
