#!/usr/bin/env python3
"""account_front.py BACKEND FAULTS LOG [PORT]: stands in front of a storage emulator on this machine.

Holds what the service holds and the emulator does not: pages of 4 MiB, lists of 50,000 blocks, 8 KB of metadata, names
of blobs, no slash in the root container. Plays faults from FAULTS, a JSON list of
{"method", "path" (regular expression of path and query), "fault", "times" (1), "skip" (0), and what the fault wants}:

  status    answers "status" (503), with "retry_after" if given
  early     answers 403 before the body was read, and closes
  half      answers with the whole length and half of the body
  reset     resets the connection instead of an answer
  lost      does what is asked, and resets the connection instead of an answer
  damage    flips one bit in the middle of the request's body
  stall     answers after "seconds"
  flip      flips one bit in the middle of the answer's body
  list      leaves the blobs of a listing out whose names match "name"

Listens on 127.0.0.1, prints `PORT n` once, writes one JSON line a request to LOG. Ends when stdin ends.
"""
import http.client
import http.server
import json
import re
import socket
import struct
import sys
import threading
import time
import urllib.parse

BACKEND, FAULTS, LOG = sys.argv[1], sys.argv[2], sys.argv[3]
PAGES_MAX, BLOCKS_MAX, METADATA_MAX = 4 << 20, 50_000, 8 << 10
lock = threading.Lock()
with open(FAULTS, encoding="utf-8") as file:
    faults = [dict({"times": 1, "skip": 0}, **one) for one in json.load(file)]


def fault_for(method, path):
    with lock:
        for one in faults:
            if one["times"] > 0 and one.get("method", method) == method and re.search(one["path"], path):
                if one["skip"] > 0:
                    one["skip"] -= 1
                    continue
                one["times"] -= 1
                return one
    return None


def limit(method, path, query, headers, body):
    """Status and code by which the service refuses, or None."""
    parts = urllib.parse.unquote(path).split("/", 3)
    container, blob = (parts[2] if len(parts) > 2 else ""), (parts[3] if len(parts) > 3 else "")
    if method != "PUT" or not blob:
        return None
    units = len(blob.encode("utf-16-le")) // 2
    if units > 1024 or blob.count("/") > 253 or any(ord(c) < 32 or 0xE000 <= ord(c) <= 0xF8FF for c in blob):
        return 400, "InvalidResourceName"
    if container == "$root" and "/" in blob:
        return 400, "InvalidResourceName"
    if query.get("comp") == ["page"] and len(body) > PAGES_MAX:
        return 413, "RequestBodyTooLarge"
    if query.get("comp") == ["blocklist"] and body.count(b"<Latest>") > BLOCKS_MAX:
        return 400, "BlockListTooLong"
    metadata = sum(len(n) - len("x-ms-meta-") + len(v) for n, v in headers.items() if n.lower().startswith("x-ms-meta-"))
    if metadata > METADATA_MAX:
        return 400, "MetadataTooLarge"
    return None


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def note(self, **more):
        path = re.sub(r"([?&]sig=)[^&]*", r"\1…", self.path)
        with lock, open(LOG, "a", encoding="utf-8") as file:
            file.write(json.dumps({"method": self.command, "path": path, **more}) + "\n")

    def refuse(self, status, code, retry_after=None, close=False):
        body = f"<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>played</Message></Error>".encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("x-ms-error-code", code)
        if retry_after is not None:
            self.send_header("Retry-After", str(retry_after))
        if close:
            self.send_header("Connection", "close")
            self.close_connection = True
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def handle_expect_100(self):
        fault = self.pending = fault_for(self.command, self.path)
        if fault and fault["fault"] == "early":
            self.note(fault="early")
            self.refuse(403, "AuthorizationFailure", close=True)
            return False
        return super().handle_expect_100()

    pending = None

    def serve(self):
        fault = self.pending or fault_for(self.command, self.path)
        self.pending = None
        kind = fault and fault["fault"]
        if kind == "early":
            self.note(fault=kind)
            self.refuse(403, "AuthorizationFailure", close=True)
            return
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.note(**({"fault": kind} if kind else {}))
        if kind == "status":
            return self.refuse(fault.get("status", 503), fault.get("code", "ServerBusy"), fault.get("retry_after"))
        if kind == "damage" and body:
            at = len(body) // 2
            body = body[:at] + bytes([body[at] ^ 1]) + body[at + 1:]
        if kind == "reset":
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
            self.close_connection = True
            return
        if kind == "stall":
            time.sleep(fault["seconds"])
        url = urllib.parse.urlsplit(self.path)
        bad = limit(self.command, url.path, urllib.parse.parse_qs(url.query), self.headers, body)
        if bad:
            return self.refuse(*bad)
        backend = urllib.parse.urlsplit(BACKEND)
        there = http.client.HTTPConnection(backend.hostname, backend.port, timeout=60)
        skip = {"connection", "expect", "transfer-encoding", "host"}
        there.putrequest(self.command, self.path, skip_accept_encoding=True)
        for name, value in self.headers.items():
            if name.lower() not in skip:
                there.putheader(name, value)
        there.endheaders(body)
        answer = there.getresponse()
        data = answer.read()
        there.close()
        if kind == "lost":
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
            self.close_connection = True
            return
        if kind == "list":
            data = re.sub(rb"<Blob>(?:(?!</Blob>).)*<Name>" + fault["name"].encode() + rb"</Name>.*?</Blob>", b"", data, flags=re.S)
        if kind == "flip" and data:
            at = len(data) // 2
            data = data[:at] + bytes([data[at] ^ 1]) + data[at + 1:]
        self.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in ("content-length", "transfer-encoding", "connection", "date", "server"):
                self.send_header(name, value)
        length = answer.getheader("Content-Length") if self.command == "HEAD" else str(len(data))
        self.send_header("Content-Length", length or "0")
        self.end_headers()
        if self.command == "HEAD":
            return
        if kind == "half":
            self.wfile.write(data[: len(data) // 2])
            self.close_connection = True
            return
        self.wfile.write(data)

    do_GET = do_PUT = do_HEAD = do_DELETE = do_POST = serve


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request, client_address):
        pass


server = Server(("127.0.0.1", int(sys.argv[4]) if len(sys.argv) > 4 else 0), Handler)
print(f"PORT {server.server_address[1]}", flush=True)
threading.Thread(target=server.serve_forever, daemon=True).start()
sys.stdin.read()
