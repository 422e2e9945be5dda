#!/usr/bin/env python3
"""measure-listing: peak memory of a live listing, by number of blobs.

  scripts/measure-listing [COUNT…] [--profile PROFILE]

A small server on this machine answers List Containers and List Blobs with as many blobs as are asked for, 5000 a page, as
the service does, and `dray preview-export` lists them. Prints blobs, pages, seconds and the peak of memory (VmHWM) of each
run [30000 300000], and fails where the last takes more than 8 bytes a blob (of which the packing keeps four) and 8 MiB over the first.
"""
import argparse
import http.server
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse

ROOT = pathlib.Path(__file__).resolve().parents[2]
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
PAGE = 5000
# Pages of a listing in several buffers, which do not fill at once.
SLACK = 8 << 20


def blob(number):
    return (
        f"<Blob><Name>archive/2026/{number % 1000:03}/measurement-{number:09}.bin</Name><Properties>"
        "<Creation-Time>Sun, 29 Nov 2026 08:00:00 GMT</Creation-Time><Last-Modified>Sun, 29 Nov 2026 08:00:00 GMT"
        f"</Last-Modified><Etag>0x8DE{number:012X}</Etag><Content-Length>{1000 + number * 7919 % 4000000}</Content-Length>"
        "<Content-Type>application/octet-stream</Content-Type><Content-MD5>1B2M2Y8AsgTpgAmY7PhCfg==</Content-MD5>"
        "<BlobType>BlockBlob</BlobType><AccessTier>Hot</AccessTier><LeaseStatus>unlocked</LeaseStatus>"
        "<LeaseState>available</LeaseState></Properties></Blob>"
    )


class Account(http.server.BaseHTTPRequestHandler):
    """An account with one container."""

    protocol_version = "HTTP/1.1"
    count, pages = 0, 0

    def do_GET(self):  # noqa: N802, the library's name
        url = urllib.parse.urlsplit(self.path)
        query = urllib.parse.parse_qs(url.query)
        head = '<?xml version="1.0" encoding="utf-8"?><EnumerationResults>'
        if url.path.rstrip("/").count("/") == 1:
            body = head + "<Containers><Container><Name>data</Name><Properties /></Container></Containers><NextMarker /></EnumerationResults>"
        else:
            Account.pages += 1
            start = int(query.get("marker", ["0"])[0] or 0)
            end = min(start + min(PAGE, int(query.get("maxresults", [PAGE])[0])), self.count)
            following = f"<NextMarker>{end}</NextMarker>" if end < self.count else "<NextMarker />"
            body = head + "<Blobs>" + "".join(map(blob, range(start, end))) + f"</Blobs>{following}</EnumerationResults>"
        data = body.encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/xml")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_):
        pass


def measure(dray, port, count, top):
    """Blobs that were counted, seconds, and bytes at the peak."""
    Account.count, Account.pages = count, 0
    words = ["preview-export", "--blob-list", "list.xml", "--drive-size", "4TB", "--endpoint",
             f"http://127.0.0.1:{port}/account", "--account-key-file", "key", "--json"]
    begin = time.monotonic()
    with open(top / "out", "wb") as out:
        run = subprocess.Popen([dray, *words], cwd=top, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.DEVNULL)
        _, status, usage = os.wait4(run.pid, 0)
        run.returncode = os.waitstatus_to_exitcode(status)
    seconds = time.monotonic() - begin
    lines = [json.loads(line) for line in (top / "out").read_text().splitlines() if line.startswith("{")]
    counted = next((line["blobs"] for line in reversed(lines) if line.get("type") == "preview"), None)
    if run.returncode or counted != count:
        sys.exit(f"dray preview-export ends with {run.returncode} and {counted} of {count} blobs")
    return seconds, usage.ru_maxrss * 1024


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("counts", nargs="*", type=int, default=[30_000, 300_000], metavar="COUNT")
    parser.add_argument("--profile", default="release", help="of target/ [release]")
    args = parser.parse_args()
    dray = ROOT / f"target/{args.profile}/dray"
    if not dray.exists():
        sys.exit(f"{dray} is missing: cargo build --release -p dray")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Account)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with tempfile.TemporaryDirectory(prefix="measure-listing-") as top:
        top = pathlib.Path(top)
        (top / "key").write_text(KEY)
        (top / "list.xml").write_text('<?xml version="1.0"?><BlobList><BlobPathPrefix>/data/</BlobPathPrefix></BlobList>')
        peaks = []
        for count in args.counts:
            seconds, peak = measure(dray, server.server_port, count, top)
            peaks.append((count, peak))
            print(f"{count:>9} blobs  {Account.pages:>4} pages  {seconds:6.1f} s  {peak / (1 << 20):6.1f} MiB at the peak")
    (first, low), (last, high) = peaks[0], peaks[-1]
    if high > low + SLACK + 8 * (last - first):
        sys.exit(f"memory grows: {high - low} bytes more for {last - first} blobs more")


if __name__ == "__main__":
    main()
