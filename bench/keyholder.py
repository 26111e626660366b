"""Keyholder under test: started on a folder, filled by its API."""

import http.client
import json
import threading
import time

from processes import Process, free_port


class Keyholder:
    """One server process on one data folder; may be stopped and started again."""

    def __init__(self, binary, folder, core, ca, **environment):
        self.binary, self.folder, self.core = binary, folder, core
        self.port = free_port()
        self.log = folder.parent / f"{folder.name}.log"
        self.environment = {
            "KEYHOLDER_DATA_DIR": str(folder),
            "KEYHOLDER_LISTEN": f"127.0.0.1:{self.port}",
            "KEYHOLDER_EGRESS_ALLOW": "127.0.0.1,localhost",
            "KEYHOLDER_CA_FILE": str(ca),
            "KEYHOLDER_WORKERS": "1",
            "KEYHOLDER_RENEWALS_PER_ENDPOINT": "64",
            "KEYHOLDER_RENEWALS_PER_SECOND": "1000",
            "KEYHOLDER_STOP_DELAY": "0s",
        } | environment
        self.process = None

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.stop()

    def start(self):
        """Seconds until /readyz answered 200."""
        begun = time.perf_counter()
        self.process = Process("keyholder", [self.binary, "serve"], self.core, self.log, **self.environment)
        self.process.listening(self.port)
        while self.request("GET", "/readyz", key="")[0] != 200:
            time.sleep(0.002)
        took = time.perf_counter() - begun
        self.key = (self.folder / "admin-key").read_text().strip()
        return took

    def stop(self):
        if self.process:
            self.process.stop()
            self.process = None

    def client(self):
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)

    def request(self, method, path, body=None, client=None, key=None):
        own = client or self.client()
        headers = {"Authorization": f"Bearer {self.key if key is None else key}"} if key != "" else {}
        own.request(method, path, json.dumps(body) if body is not None else None, headers)
        response = own.getresponse()
        text = response.read()
        if not client:
            own.close()
        return response.status, text

    def do(self, method, path, body=None, client=None):
        status, text = self.request(method, path, body, client)
        if status >= 300:
            raise SystemExit(f"{method} {path}: {status} {text.decode(errors='replace')}")
        return json.loads(text or b"null")

    def integration(self, name, upstream, base_url, method="client_credentials", token="/token", **variables):
        self.do("POST", "/v1/integrations", {
            "name": name, "provider": "oauth2", "method": method, "client_id": "bench", "client_secret": "bench-secret",
            "variables": {"token_url": f"http://127.0.0.1:{upstream.port}{token}", "api_base_url": base_url} | variables,
        })

    def connect(self, names, integration, **grant):
        """Makes connections and runs their grant, sixteen at a time."""
        waiting, lock = iter(list(names)), threading.Lock()

        def work():
            client = self.client()
            while True:
                with lock:
                    name = next(waiting, None)
                if name is None:
                    return
                self.do("POST", "/v1/connections", {"name": name, "integration": integration}, client)
                self.do("POST", f"/v1/connections/{name}/authorize", grant, client)

        threads = [threading.Thread(target=work) for _ in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
