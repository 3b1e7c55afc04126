"""An HTTP proxy that knows CONNECT and asks for a password.

Usage: connect_proxy.py PORT USER:PASSWORD
"""

import base64
import socket
import sys
import threading

PORT, CREDENTIALS = int(sys.argv[1]), base64.b64encode(sys.argv[2].encode()).decode()


def pump(source, target):
    try:
        while data := source.recv(65536):
            target.sendall(data)
    except OSError:
        pass
    finally:
        for end in (source, target):
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass


def serve(client):
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        data = client.recv(1)
        if not data:
            return
        head += data
    text = head.decode()
    if f"Proxy-Authorization: Basic {CREDENTIALS}" not in text:
        client.sendall(b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n")
        client.close()
        return
    host, _, port = text.split(" ")[1].rpartition(":")
    target = socket.create_connection((host, int(port)))
    client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
    print("tunnel to", host, port, flush=True)
    threading.Thread(target=pump, args=(client, target), daemon=True).start()
    pump(target, client)


listener = socket.create_server(("127.0.0.1", PORT))
print("listens", flush=True)
while True:
    threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()
