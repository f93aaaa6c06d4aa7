"""An S3 endpoint that misbehaves as told: a proxy before a sound one. Faults F30 to F37."""

import http.client
import http.server
import random
import socket
import threading
import time


class FaultyStore:
    """Passes requests on to `port`. `rates` says how often each fault happens, from 0 to 1: `slow` (waits a second), `reset` (cut before it is done),
    `error` (503), `denied` (403), `lost_reply` (done and never answered), `corrupt` (a flipped bit), `truncated` (half of a body). `counts` are those
    that happened."""

    def __init__(self, port, seed=1):
        self.target, self.rates, self.counts, self.random = port, {}, {}, random.Random(seed)
        self.lock = threading.Lock()
        store = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                pass

            def handle_any(self):
                store.handle(self)

            do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = handle_any

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.server.handle_error = lambda *_: None
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def happens(self, fault):
        with self.lock:
            if self.random.random() >= self.rates.get(fault, 0):
                return False
            self.counts[fault] = self.counts.get(fault, 0) + 1
            return True

    def handle(self, client):
        body = client.rfile.read(int(client.headers.get("Content-Length", 0)))
        if self.happens("slow"):
            time.sleep(1)
        if self.happens("reset"):
            return self.cut(client)
        if self.happens("error"):
            return self.answer(client, 503, b"<Error><Code>SlowDown</Code></Error>")
        if self.happens("denied"):
            return self.answer(client, 403, b"<Error><Code>AccessDenied</Code></Error>")
        upstream = http.client.HTTPConnection("127.0.0.1", self.target, timeout=30)
        try:
            upstream.putrequest(client.command, client.path, skip_host=True, skip_accept_encoding=True)
            for name, value in client.headers.items():
                upstream.putheader(name, value)
            upstream.endheaders(body or None)
            reply = upstream.getresponse()
            content = reply.read()
        except OSError:
            return self.cut(client)
        finally:
            upstream.close()
        if self.happens("lost_reply"):
            return self.cut(client)
        if client.command == "GET" and reply.status in (200, 206) and len(content) > 2:
            if self.happens("corrupt"):
                at = self.random.randrange(len(content))
                content = content[:at] + bytes([content[at] ^ 1 << self.random.randrange(8)]) + content[at + 1:]
            if self.happens("truncated"):
                self.answer(client, reply.status, content[:len(content) // 2], reply.getheaders(), len(content))
                return self.cut(client)
        self.answer(client, reply.status, content, reply.getheaders())

    def answer(self, client, status, content, headers=(), length=None):
        client.send_response_only(status)
        own = {"transfer-encoding", "connection"} if client.command == "HEAD" else {"transfer-encoding", "connection", "content-length"}
        for name, value in headers:
            if name.lower() not in own:
                client.send_header(name, value)
        if client.command != "HEAD":
            client.send_header("Content-Length", str(len(content) if length is None else length))
        client.end_headers()
        if client.command != "HEAD":
            client.wfile.write(content)

    def cut(self, client):
        client.close_connection = True
        try:
            client.connection.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
