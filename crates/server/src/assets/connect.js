/* Opens Keyholder's connect links from a page of yours, and says how it ended. Load it on the page that opens the link and on the page that your
   return_url names; both must have the same origin. docs/connect-pages.md has a whole example. */
globalThis.KeyholderConnect = (() => {
  const CHANNEL = 'keyholder-connect';

  /** What stands in the address of the return page; null on any other. */
  function result() {
    const query = new URLSearchParams(location.search);
    const [connection, code, error] = ['connection', 'code', 'error'].map((name) => query.get(name));
    return connection && (code || error) ? { connection, code, error } : null;
  }

  /** Opens a link: in a window of its own, or (`mode: 'redirect'`, or where windows are blocked) in this one. Answers what came back: `connection` and `code`, for your server to complete with. With `connection`, the id that
      the link is for, what comes back of others is left to those who wait for it, in other tabs too. */
  function open(url, { mode = 'popup', connection, signal } = {}) {
    return new Promise((resolve, reject) => {
      const channel = new BroadcastChannel(CHANNEL);
      const end = (settle, value) => { channel.close(); settle(value); };
      channel.onmessage = ({ data }) => {
        if (connection && data.connection !== connection) return;
        if (data.error) end(reject, new Error(data.error)); else end(resolve, data);
      };
      signal?.addEventListener('abort', () => end(reject, signal.reason), { once: true });
      const [left, top] = [(screen.availWidth - 520) / 2, (screen.availHeight - 720) / 2];
      // Keyholder's pages and providers' cut themselves off from who opened them, so nothing can be asked of this window.
      if (mode === 'popup' && window.open(url, '_blank', `popup,width=520,height=720,left=${left},top=${top}`)) return;
      channel.close();
      location.assign(url);
    });
  }

  const back = result();
  if (back) {
    const channel = new BroadcastChannel(CHANNEL);
    channel.postMessage(back);
    channel.close();
    // Only a window that a script opened closes; in redirect mode this page stays, and asks `result()`.
    setTimeout(() => window.close(), 50);
  }
  return { open, result };
})();
