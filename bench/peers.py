"""What Keyholder is measured beside: nginx and Envoy, and the nginx behind them all, which is API and token endpoint."""

import json
import os
import shutil
import subprocess

from processes import Process, free_port

NGINX = shutil.which("nginx") or "/usr/sbin/nginx"
SMALL = '{"id":"c-1","name":"Ada Lovelace","email":"ada@example.com","company":"Analytical Engines","tags":["first","programmer"],"active":true}'

NGINX_CONF = """
{user}
daemon off;
worker_processes 1;
worker_rlimit_nofile 65536;
pid {folder}/{name}.pid;
error_log {folder}/{name}.log warn;
events {{ worker_connections 20000; }}
http {{
    access_log off;
    default_type application/json;
    sendfile on;
    tcp_nodelay on;
    keepalive_requests 1000000000;
    keepalive_time 1d;
    keepalive_timeout 1h;
    client_max_body_size 0;
    client_body_temp_path {scratch}/body;
    proxy_temp_path {scratch}/proxy;
    fastcgi_temp_path {scratch}/none;
    uwsgi_temp_path {scratch}/none;
    scgi_temp_path {scratch}/none;
    {body}
}}
"""


def nginx(name, folder, scratch, core, port, body):
    conf = folder / f"{name}.conf"
    user = "user root;" if os.geteuid() == 0 else ""
    conf.write_text(NGINX_CONF.format(name=name, folder=folder, scratch=scratch, body=body, user=user))
    return Process(name, [NGINX, "-p", folder, "-e", folder / f"{name}.log", "-c", conf], core, folder / f"{name}.out").listening(port)


def quoted(text):
    return "'" + text.replace("'", "\\'") + "'"


def certificates(folder):
    """An authority, and a certificate for localhost in its name."""
    def openssl(*words):
        subprocess.run(["openssl", *words], cwd=folder, check=True, capture_output=True)

    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    openssl("req", "-x509", *key, "-keyout", "ca.key", "-out", "ca.pem", "-days", "30", "-subj", "/CN=bench authority",
            "-addext", "keyUsage=critical,keyCertSign")
    openssl("req", *key, "-keyout", "leaf.key", "-out", "leaf.csr", "-subj", "/CN=localhost")
    (folder / "leaf.ext").write_text("subjectAltName=DNS:localhost\nbasicConstraints=CA:FALSE\nextendedKeyUsage=serverAuth\n")
    openssl("x509", "-req", "-in", "leaf.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-out", "leaf.pem",
            "-days", "30", "-extfile", "leaf.ext")


class Upstream:
    """The API (plain and TLS), and the token endpoint: one nginx with one worker."""

    def __init__(self, folder, scratch, core, token):
        self.port, self.tls_port, tail_port = free_port(), free_port(), free_port()
        reply = {"access_token": token, "token_type": "Bearer", "expires_in": 86400}
        rotating = reply | {"refresh_token": "r" * 64}
        self.process = nginx("upstream", folder, scratch, core, self.port, f"""
    server {{
        listen 127.0.0.1:{self.port} reuseport backlog=4096;
        listen 127.0.0.1:{self.tls_port} ssl backlog=4096;
        ssl_certificate {folder}/leaf.pem;
        ssl_certificate_key {folder}/leaf.key;
        location / {{ return 200 {quoted(SMALL)}; }}
        location = /file {{ alias {scratch}/file; }}
        location = /authorization {{ return 200 $http_authorization; }}
        # The whole body is read before the answer.
        location = /upload {{
            proxy_pass http://127.0.0.1:{tail_port};
            proxy_pass_request_body off;
            proxy_set_header Content-Length "";
        }}
        location = /token {{ return 200 {quoted(json.dumps(reply))}; }}
        location = /rotating {{ return 200 {quoted(json.dumps(rotating))}; }}
    }}
    server {{
        listen 127.0.0.1:{tail_port};
        return 200 "taken";
    }}""")


def beside(folder, scratch, core, upstream, token, token_reply):
    """nginx that hands out a fixed reply at one port, and puts a fixed header in at two others."""
    ports = {"fixed": free_port(), "plain": free_port(), "tls": free_port()}
    proxy = f"""
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_set_header Authorization "Bearer {token}";
            proxy_request_buffering off;
            proxy_max_temp_file_size 0;
            proxy_buffers 8 64k;"""
    keep = "keepalive 512; keepalive_requests 1000000000; keepalive_time 1d; keepalive_timeout 1h;"
    process = nginx("nginx", folder, scratch, core, ports["plain"], f"""
    upstream plain {{ server 127.0.0.1:{upstream.port}; {keep} }}
    upstream tls {{ server 127.0.0.1:{upstream.tls_port}; {keep} }}
    server {{
        listen 127.0.0.1:{ports["fixed"]} backlog=4096;
        add_header Cache-Control no-store;
        location / {{ return 200 {quoted(token_reply)}; }}
    }}
    server {{
        listen 127.0.0.1:{ports["plain"]} backlog=4096;
        location / {{
            proxy_pass http://plain;{proxy}
        }}
    }}
    server {{
        listen 127.0.0.1:{ports["tls"]} backlog=4096;
        location / {{
            proxy_pass https://tls;{proxy}
            proxy_ssl_name localhost;
            proxy_ssl_server_name on;
            proxy_ssl_verify on;
            proxy_ssl_trusted_certificate {folder}/ca.pem;
        }}
    }}""")
    return process, ports


def envoy(folder, work, core, upstream, token):
    ports = {"plain": free_port(), "tls": free_port()}
    types = "type.googleapis.com/envoy.extensions"
    injector = {
        "name": "envoy.filters.http.credential_injector",
        "typed_config": {
            "@type": f"{types}.filters.http.credential_injector.v3.CredentialInjector",
            "overwrite": True,
            "credential": {
                "name": "envoy.http.injected_credentials.generic",
                "typed_config": {
                    "@type": f"{types}.http.injected_credentials.generic.v3.Generic",
                    "credential": {"name": "credential"},
                },
            },
        },
    }
    router = {
        "name": "envoy.filters.http.router",
        "typed_config": {"@type": f"{types}.filters.http.router.v3.Router", "dynamic_stats": False, "suppress_envoy_headers": True},
    }

    def address(port):
        return {"socket_address": {"address": "127.0.0.1", "port_value": port}}

    def listener(name):
        manager = {
            "@type": f"{types}.filters.network.http_connection_manager.v3.HttpConnectionManager",
            "stat_prefix": name,
            "generate_request_id": False,
            "http_filters": [injector, router],
            "route_config": {"virtual_hosts": [{
                "name": name, "domains": ["*"],
                "routes": [{"match": {"prefix": "/"}, "route": {"cluster": name, "timeout": "0s"}}],
            }]},
        }
        filters = [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]
        return {"name": name, "address": address(ports[name]), "filter_chains": [{"filters": filters}]}

    def cluster(name, port):
        endpoints = [{"lb_endpoints": [{"endpoint": {"address": address(port)}}]}]
        return {"name": name, "type": "STATIC", "load_assignment": {"cluster_name": name, "endpoints": endpoints}}

    tls = {
        "name": "envoy.transport_sockets.tls",
        "typed_config": {
            "@type": f"{types}.transport_sockets.tls.v3.UpstreamTlsContext",
            "sni": "localhost",
            "common_tls_context": {"validation_context": {
                "trusted_ca": {"filename": str(folder / "ca.pem")},
                "match_typed_subject_alt_names": [{"san_type": "DNS", "matcher": {"exact": "localhost"}}],
            }},
        },
    }
    config = {"static_resources": {
        "secrets": [{"name": "credential", "generic_secret": {"secret": {"inline_string": f"Bearer {token}"}}}],
        "listeners": [listener("plain"), listener("tls")],
        "clusters": [cluster("plain", upstream.port), cluster("tls", upstream.tls_port) | {"transport_socket": tls}],
    }}
    (folder / "envoy.json").write_text(json.dumps(config))
    command = [envoy_binary(work), "-c", folder / "envoy.json", "--concurrency", 1, "--log-level", "warning", "--use-dynamic-base-id"]
    return Process("envoy", command, core, folder / "envoy.log").listening(ports["plain"]), ports


def envoy_binary(work):
    """The program itself, without the wheel's wrapper."""
    return next(work.glob("venv/lib/python*/site-packages/envoy/_bin/envoy"))


def versions(work):
    def said(*command):
        done = subprocess.run([str(word) for word in command], capture_output=True, text=True)
        return (done.stdout + done.stderr).strip().splitlines()

    return {
        "nginx": said(NGINX, "-v")[0].split("/")[-1],
        "Envoy": said(envoy_binary(work), "--version")[-1].split("version: ")[-1].split("/")[1],
        "wrk": said("wrk", "-v")[0].split()[1].removeprefix("debian/"),
    }
