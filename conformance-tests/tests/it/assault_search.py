"""Searches all that it can reach for needles, and prints where each was found.

argv: a moment (seconds since 1970; what is older below /usr came with the machine), the hosts' TCP ports and the names
of their abstract sockets that are worth a try (separated by commas), then the needles, each backwards so that this
program does not find itself.
"""

import ctypes
import json
import os
import re
import socket
import stat
import sys

SINCE = float(sys.argv[1])
PORTS = [int(port) for port in sys.argv[2].split(",")]
NAMES = sys.argv[3].split(",")
NEEDLES = [needle[::-1].encode() for needle in sys.argv[4:]]
MOST = 64 << 20
found = set()
tried = {}
libc = ctypes.CDLL(None, use_errno=True)


def look(place, data):
    tried[place] = tried.get(place, 0) + 1
    for number, needle in enumerate(NEEDLES):
        if needle in data:
            found.add((place, number))


def read(path, most=MOST):
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError:
        return b""
    try:
        pieces, size = [], 0
        while size < most:
            piece = os.read(descriptor, 1 << 20)
            if not piece:
                break
            pieces.append(piece)
            size += len(piece)
        return b"".join(pieces)
    except OSError:
        return b"".join(pieces)
    finally:
        os.close(descriptor)


def files():
    for directory, directories, names in os.walk("/"):
        if directory == "/":
            directories.remove("proc")
        for name in directories + names:
            path = os.path.join(directory, name)
            try:
                about = os.lstat(path)
            except OSError:
                continue
            look("name", os.fsencode(path))
            if stat.S_ISLNK(about.st_mode):
                look("link", os.fsencode(os.readlink(path)))
            if path.startswith("/usr/") and about.st_ctime < SINCE:
                continue
            if stat.S_ISREG(about.st_mode):
                look("file", read(path))
            elif stat.S_ISCHR(about.st_mode) and not path.startswith(("/dev/tty", "/dev/pt")):
                look("device", read(path, 1 << 16))
            elif stat.S_ISSOCK(about.st_mode):
                speak("socket", socket.AF_UNIX, path)


def speak(place, family, address):
    for words in [b"", b"GET / HTTP/1.0\r\n\r\n", b"tools/list\n"]:
        try:
            with socket.socket(family, socket.SOCK_STREAM) as stream:
                stream.settimeout(4)
                stream.connect(address)
                try:
                    stream.sendall(words)
                    stream.shutdown(socket.SHUT_WR)
                except OSError:
                    pass  # Who has said all may have closed by now.
                answer = b""
                while len(answer) < 1 << 16:
                    piece = stream.recv(1 << 16)
                    if not piece:
                        break
                    answer += piece
        except OSError:
            answer = b""
        look(place, answer)
        if not answer and not words:
            return


def sockets():
    for line in read("/proc/net/unix").decode(errors="replace").splitlines()[1:]:
        path = line.split(maxsplit=7)[7:]
        if path:
            path = path[0]
            NAMES.append(path[1:]) if path.startswith("@") else speak("socket", socket.AF_UNIX, path)
    for name in NAMES:
        speak("abstract socket", socket.AF_UNIX, "\0" + name)


def ports():
    reached = set()
    for port in range(1, 65536):
        with socket.socket() as stream:
            stream.settimeout(1)
            if stream.connect_ex(("127.0.0.1", port)) == 0:
                reached.add(port)
    for port in reached | set(PORTS):
        for host in ["127.0.0.1", "127.0.0.2", "0.0.0.0"]:
            speak("port", socket.AF_INET, (host, port))
        speak("port", socket.AF_INET6, ("::1", port))
    for port in PORTS:
        for host in ["127.0.0.1", "localhost", "0.0.0.0", "[::1]", "[::ffff:127.0.0.1]", "2130706433"]:
            for words in [f"CONNECT {host}:{port} HTTP/1.1\r\n\r\n\r\n", f"GET http://{host}:{port}/ HTTP/1.1\r\n\r\n"]:
                for way in [("127.0.0.1", 3128), "/run/steading/egress.sock", "/run/steading/bridge.sock"]:
                    family = socket.AF_UNIX if isinstance(way, str) else socket.AF_INET
                    with socket.socket(family) as stream:
                        stream.settimeout(1)
                        try:
                            stream.connect(way)
                            stream.sendall(words.encode())
                            answer = stream.recv(1 << 16)
                            answer += stream.recv(1 << 16)
                        except OSError:
                            answer = b""
                        look("way out", answer)


def memory(process):
    place = "memory of another"
    libc.ptrace(0x4206, int(process), 0, 0)
    try:
        descriptor = os.open(f"/proc/{process}/mem", os.O_RDONLY)
    except OSError:
        look(place, b"")
        return
    for line in read(f"/proc/{process}/maps").decode(errors="replace").splitlines():
        begin, end, rights = re.match(r"([0-9a-f]+)-([0-9a-f]+) (....)", line).groups()
        if rights[0] != "r":
            continue
        try:
            look(place, os.pread(descriptor, min(int(end, 16) - int(begin, 16), MOST), int(begin, 16)))
        except (OSError, OverflowError, ValueError):
            pass
    os.close(descriptor)


def processes():
    for process in filter(str.isdigit, os.listdir("/proc")):
        own = int(process) == os.getpid()
        for name in ["environ", "cmdline", "comm", "status", "mountinfo", "maps", "auxv", "stack", "syscall", "cgroup"]:
            if not (own and name == "cmdline"):
                look(name, read(f"/proc/{process}/{name}"))
        for name in ["cwd", "exe", "root"]:
            try:
                look(name, os.fsencode(os.readlink(f"/proc/{process}/{name}")))
            except OSError:
                pass
        try:
            descriptors = os.listdir(f"/proc/{process}/fd")
        except OSError:
            descriptors = []
        for descriptor in descriptors:
            look("descriptor", read(f"/proc/{process}/fd/{descriptor}", 1 << 20))
        for path in [f"/proc/{process}/root/etc/shadow", f"/proc/{process}/root/proc/1/environ"]:
            look("root", read(path))
        if not own:
            memory(process)
    for name in ["kcore", "keys", "key-users", "kallsyms", "kmsg", "sysvipc/shm", "net/unix", "cmdline", "config.gz"]:
        look("kernel", read(f"/proc/{name}", 1 << 20))


def keys():
    # keyctl(2): read each keyring that has a number of its own, and every key that it names.
    buffer = ctypes.create_string_buffer(1 << 16)
    numbers = [-1, -2, -3, -4, -5, -6, -7, -8]
    while numbers:
        number = numbers.pop()
        size = libc.syscall(250, 11, number, buffer, len(buffer))
        if size > 0:
            data = buffer.raw[:size]
            look("key", data)
            if number < 0:
                numbers += [int.from_bytes(data[at : at + 4], "little") for at in range(0, size - 3, 4)]
    for name in [b"planted", b"user"]:
        libc.syscall(249, b"user", name, None, -4)


def shared():
    for number in range(64):
        if libc.shmat(number, None, 0o10000) not in (-1, 0):
            found.add(("shared memory", 0))


for search in [files, sockets, ports, processes, keys, shared]:
    search()
print(json.dumps({"found": sorted(found), "tried": tried}))
