// What a test may see and do to the peer: the log of every request, faults, deleted accounts.
//
//   GET /log, DELETE /log          [{server: "issuer"|"resource", method, path, status (0 = no answer), client?, grant_type?, error?, fault?}, …]
//   POST /fault, DELETE /fault     {"server": "issuer"|"resource", "path": "/token", "times": 1, and what happens:
//                                   "status", "headers", "body"   answer this instead
//                                   "delay_ms"                    be slow
//                                   "drop": true                  close the connection without an answer
//                                   "after": true                 do the work first: only the answer is lost or replaced}
//   POST /gone                     {"account": "bob"}: the account is deleted, its grants are dead
const sleep = (ms) => new Promise((resolve) => { setTimeout(resolve, ms); });

export class Control {
  gone = new Set();
  #log = [];
  #faults = [];

  /** Koa middleware in front of every endpoint of the issuer. */
  middleware() {
    return async (ctx, next) => {
      const started = Date.now();
      const fault = this.#take('issuer', ctx.path);
      const replaced = fault?.drop || fault?.status;
      if (fault?.delay_ms && !fault.after) await sleep(fault.delay_ms);
      if (!replaced || fault.after) await next();
      if (fault?.delay_ms && fault.after) await sleep(fault.delay_ms);
      if (fault?.drop) {
        ctx.respond = false;
        ctx.req.socket.destroy();
      } else if (fault?.status) {
        ctx.status = fault.status;
        ctx.set(fault.headers ?? {});
        ctx.body = fault.body ?? '';
      }
      this.note({
        server: 'issuer', method: ctx.method, path: ctx.path, status: fault?.drop ? 0 : ctx.status, ms: Date.now() - started,
        client: ctx.oidc?.client?.clientId, grant_type: ctx.oidc?.params?.grant_type,
        error: ctx.body?.error, description: ctx.body?.error_description,
        fault: kindOf(fault),
      });
    };
  }

  /** The same for a plain request handler: resolves to true when the fault has answered. */
  async intercept(req, res) {
    const { pathname } = new URL(req.url, 'http://peer');
    const fault = this.#take('resource', pathname);
    if (fault?.delay_ms) await sleep(fault.delay_ms);
    if (fault?.drop) {
      this.note({ server: 'resource', method: req.method, path: pathname, status: 0, fault: 'drop' });
      req.socket.destroy();
    } else if (fault?.status) {
      this.note({ server: 'resource', method: req.method, path: pathname, status: fault.status, fault: fault.status });
      res.writeHead(fault.status, fault.headers ?? {}).end(fault.body ?? '');
    }
    return !!(fault?.drop || fault?.status);
  }

  /** Adds to the log; called before the reply leaves, so that who got the reply finds the entry. */
  note(entry) {
    if (entry.path !== '/favicon.ico') this.#log.push(entry);
  }

  /** The control server. */
  handler() {
    return async (req, res) => {
      const chunks = [];
      for await (const chunk of req) chunks.push(chunk);
      const text = Buffer.concat(chunks).toString();
      const reply = this.#command(`${req.method} ${req.url}`, text ? JSON.parse(text) : {});
      res.writeHead(reply ? 200 : 404, { 'content-type': 'application/json' }).end(JSON.stringify(reply ?? {}));
    };
  }

  #command(what, body) {
    const ok = { ok: true };
    switch (what) {
      case 'GET /log': return this.#log;
      case 'DELETE /log': this.#log = []; return ok;
      case 'POST /fault': this.#faults.push({ server: 'issuer', times: 1, ...body }); return ok;
      case 'DELETE /fault': this.#faults = []; return ok;
      case 'POST /gone': this.gone.add(body.account); return ok;
      default: return undefined;
    }
  }

  #take(server, path) {
    const fault = this.#faults.find((one) => one.server === server && one.path === path && one.times > 0);
    if (fault) fault.times -= 1;
    return fault;
  }

}

function kindOf(fault) {
  return fault && (fault.drop ? 'drop' : fault.status ?? 'delay');
}
