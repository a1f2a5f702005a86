// An SMTP server that takes mail over STARTTLS from whoever signs in, and says on stdout, a JSON object a line, what came.
// Arguments: port, files of key and certificate. What it does with a letter depends on the address that it is for:
//   poison..  refused for good
//   busy..    refused for now, once
//   held..    taken, and the first time never answered, as if the sender had died before it heard
import { readFileSync } from 'node:fs';
import { SMTPServer } from 'smtp-server';

const [port, key, cert] = process.argv.slice(2);
const seen = new Map();
const say = (what) => process.stdout.write(`${JSON.stringify(what)}\n`);

const server = new SMTPServer({
  key: readFileSync(key),
  cert: readFileSync(cert),
  disabledCommands: [],
  onAuth({ username, password }, _session, callback) {
    const good = username === 'tenantry' && password === 'open sesame';
    callback(good ? null : new Error('wrong user or password'), { user: username });
  },
  onRcptTo({ address }, session, callback) {
    say({ asked: address, secure: session.secure, user: session.user ?? '' });
    const times = (seen.get(address) ?? 0) + 1;
    seen.set(address, times);
    if (address.startsWith('poison')) {
      return callback(Object.assign(new Error('there is nobody of this name'), { responseCode: 550 }));
    }
    if (address.startsWith('busy') && times === 1) {
      return callback(Object.assign(new Error('the box is full'), { responseCode: 452 }));
    }
    return callback();
  },
  onData(stream, session, callback) {
    const chunks = [];
    stream.on('data', (chunk) => chunks.push(chunk));
    stream.on('end', () => {
      const [to] = session.envelope.rcptTo.map(({ address }) => address);
      say({ mail: Buffer.concat(chunks).toString(), to, secure: session.secure, user: session.user });
      if (!(to.startsWith('held') && seen.get(to) === 1)) callback();
    });
  },
});
server.on('error', ({ message }) => say({ error: message }));
server.listen(Number(port), '127.0.0.1', () => say({ port: server.server.address().port }));
