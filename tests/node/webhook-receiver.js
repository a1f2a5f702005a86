// A receiver of webhooks that verifies what comes with the Standard Webhooks library, and says on stdout, a JSON object a
// line, what it was. A line on stdin is a secret that may sign from then on. What it answers depends on the path:
//   /fail 500   /gone 410   /away 302 to /ok   /silent nothing   /endless never ends   /cut the connection is cut
// and anything else 204.
import { createServer } from 'node:http';
import { createInterface } from 'node:readline';
import { Webhook } from 'standardwebhooks';

const secrets = [];
const say = (what) => process.stdout.write(`${JSON.stringify(what)}\n`);

function verified(secret, body, headers) {
  try {
    // Time is the tests' own business: they move the sender's clock.
    const seconds = Number(headers['webhook-timestamp']);
    const real = Date.now;
    Date.now = () => seconds * 1000;
    try {
      new Webhook(secret).verify(body, headers);
    } finally {
      Date.now = real;
    }
    return true;
  } catch {
    return false;
  }
}

const server = createServer((request, response) => {
  const chunks = [];
  request.on('data', (chunk) => chunks.push(chunk));
  request.on('end', () => {
    const body = Buffer.concat(chunks).toString();
    const { headers, method, url } = request;
    say({ method, url, headers, body, verified: secrets.map((secret) => verified(secret, body, headers)) });
    const path = url.split('?')[0];
    if (path === '/silent') return;
    if (path === '/cut') return request.socket.destroy();
    if (path === '/endless') {
      response.writeHead(200);
      const pour = () => {
        while (!response.destroyed && response.write('x'.repeat(65536)));
        if (!response.destroyed) response.once('drain', pour);
      };
      return pour();
    }
    const codes = { '/fail': 500, '/gone': 410, '/away': 302 };
    response.writeHead(codes[path] ?? 204, path === '/away' ? { location: '/ok' } : {});
    response.end();
  });
});

createInterface({ input: process.stdin }).on('line', (line) => secrets.push(line));
server.listen(0, '127.0.0.1', () => say({ port: server.address().port }));
