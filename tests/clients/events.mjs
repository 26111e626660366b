// As events.py, by the npm package `eventsource`. The API cuts the stream after the fourth event; the library connects again and goes on from there.

import { randomUUID } from 'node:crypto';
import { text } from 'node:stream/consumers';
import { EventSource } from 'eventsource';

const job = JSON.parse(await text(process.stdin));
const run = randomUUID();
const authorized = (url, init) => fetch(url, { ...init, headers: { ...init?.headers, authorization: `Bearer ${job.token}` } });
const source = new EventSource(`${job.base}/events?run=${run}&cut=4`, { fetch: authorized });
const events = [];
let opened = 0;
source.onopen = () => { opened += 1; };
for (const kind of ['message', 'kind-0', 'kind-1', 'kind-2']) {
  source.addEventListener(kind, async (event) => {
    events.push([event.type, event.lastEventId, event.data, null]);
    if (event.data !== 'over') return authorized(`${job.base}/seen?run=${run}&n=${event.lastEventId}`);
    console.log(JSON.stringify({ opened, events }));
    process.exit();
  });
}
