// OpenID providers for the tests, on loopback: the real one, and a crooked one that answers as told. Prints its address on
// the first line and ends when its input does.
//
// Who signs in is said in `login_hint`: base64url of JSON with `sub` and further claims. Nobody is asked anything.

import { createServer } from 'node:http';
import { createHash, randomUUID } from 'node:crypto';

import { exportJWK, generateKeyPair, SignJWT, UnsecuredJWT } from 'jose';
import Provider from 'oidc-provider';

const REDIRECT = 'https://app.example.com/callback';
const SECRET = 'a secret of the client, for the tests';

const people = new Map();

const read = (hint) => JSON.parse(Buffer.from(hint ?? 'e30', 'base64url').toString());

const keyOf = async (alg) => {
  const { privateKey, publicKey } = await generateKeyPair(alg, { extractable: true });
  const kid = `${alg}-${randomUUID()}`;
  return { alg, kid, privateKey, publicKey, private: { ...(await exportJWK(privateKey)), alg, kid, use: 'sig' },
    public: { ...(await exportJWK(publicKey)), alg, kid, use: 'sig' } };
};

const server = createServer();
await new Promise((listening) => server.listen(0, '127.0.0.1', listening));
const issuer = `http://127.0.0.1:${server.address().port}`;

// ---- the real one ---------------------------------------------------------------------------------------------------

const keys = [await keyOf('RS256'), await keyOf('ES256')];
const client = (client_id, alg) => ({
  client_id, client_secret: SECRET, redirect_uris: [REDIRECT], response_types: ['code'],
  grant_types: ['authorization_code'], id_token_signed_response_alg: alg,
});

const provider = new Provider(issuer, {
  clients: [client('rs256', 'RS256'), client('es256', 'ES256')],
  jwks: { keys: keys.map((key) => key.private) },
  cookies: { keys: [randomUUID()] },
  scopes: ['openid', 'email', 'profile', 'groups'],
  claims: { openid: ['sub'], email: ['email', 'email_verified'], profile: ['name'], groups: ['groups'] },
  features: { devInteractions: { enabled: false } },
  interactions: { url: (_, interaction) => `/interaction/${interaction.uid}` },
  pkce: { required: () => true },
  findAccount: (_, sub) => ({ accountId: sub, claims: () => ({ ...people.get(sub), sub }) }),
  renderError: (ctx, out) => { ctx.body = out; },
});

async function interact(request, response) {
  const { params, prompt } = await provider.interactionDetails(request, response);
  const person = read(params.login_hint);
  people.set(person.sub, person);
  if (prompt.name === 'login') {
    return provider.interactionFinished(request, response, { login: { accountId: person.sub, remember: false } });
  }
  const grant = new provider.Grant({ accountId: person.sub, clientId: params.client_id });
  grant.addOIDCScope(params.scope);
  const grantId = await grant.save();
  return provider.interactionFinished(request, response, { consent: { grantId } }, { mergeWithLastSubmission: true });
}

// ---- crooked ones: providers whose tokens are wrong in the way that `wrong` in the hint says. Each name below /crooked/ is
// one of its own, so that tests do not change each other's keys.

const foreign = await keyOf('ES256');
const crooked = new Map();
// What the crooked ones say at their userinfo endpoints, by access token.
const further = new Map();

async function crookedOf(name) {
  if (!crooked.has(name)) crooked.set(name, { issuer: `${issuer}/crooked/${name}`, key: await keyOf('ES256'), asked: 0 });
  return crooked.get(name);
}

const send = (response, body, status = 200) => {
  response.writeHead(status, { 'content-type': 'application/json' });
  response.end(JSON.stringify(body));
};

async function idToken(own, { client_id, nonce, max_age, person }) {
  const now = Math.floor(Date.now() / 1000);
  const { wrong, at_userinfo, auth_time_again, ...claims } = person;
  if (max_age === '0') claims.auth_time = auth_time_again;
  const payload = { iss: own.issuer, aud: client_id, nonce, iat: now, exp: now + 3600, ...claims };
  if (wrong === 'nonce') payload.nonce = 'of another sign-in';
  if (wrong === 'no nonce') delete payload.nonce;
  if (wrong === 'issuer') payload.iss = issuer;
  if (wrong === 'audience') payload.aud = 'another client';
  if (wrong === 'expired') payload.exp = now - 600;
  if (wrong === 'future') payload.iat = now + 86400 * 30;
  if (wrong === 'none') return new UnsecuredJWT(payload).encode();
  if (wrong === 'hs256') return new SignJWT(payload).setProtectedHeader({ alg: 'HS256' }).sign(Buffer.from(SECRET));
  const key = wrong === 'key' ? foreign : own.key;
  const token = await new SignJWT(payload).setProtectedHeader({ alg: 'ES256', kid: own.key.kid }).sign(key.privateKey);
  if (wrong !== 'tampered') return token;
  const [head, , signature] = token.split('.');
  const other = Buffer.from(JSON.stringify({ ...payload, sub: 'somebody else' })).toString('base64url');
  return [head, other, signature].join('.');
}

async function beCrooked(request, response, url) {
  const [, , name, ...rest] = url.pathname.split('/');
  const own = await crookedOf(name);
  switch (rest.join('/')) {
    case '.well-known/openid-configuration':
      own.asked += 1;
      return send(response, {
        issuer: own.issuer, authorization_endpoint: `${own.issuer}/auth`, token_endpoint: `${own.issuer}/token`,
        userinfo_endpoint: `${own.issuer}/userinfo`, padding: name.startsWith('large') ? ' '.repeat(65536) : '',
        jwks_uri: `${own.issuer}/jwks`, response_types_supported: ['code'], subject_types_supported: ['public'],
        id_token_signing_alg_values_supported: ['ES256', 'HS256', 'none'],
      });
    case 'jwks':
      return send(response, { keys: Array(name.startsWith('many') ? 51 : 1).fill(own.key.public) });
    case 'asked':
      return send(response, own.asked);
    case 'userinfo':
      return send(response, further.get(request.headers.authorization?.replace('Bearer ', '')));
    case 'auth': {
      const asked = Object.fromEntries(url.searchParams);
      const code = Buffer.from(JSON.stringify({ client_id: asked.client_id, nonce: asked.nonce,
        max_age: asked.max_age, challenge: asked.code_challenge, person: read(asked.login_hint) })).toString('base64url');
      const back = new URL(asked.redirect_uri);
      back.searchParams.set('code', code);
      back.searchParams.set('state', asked.state);
      response.writeHead(303, { location: back.href });
      return response.end();
    }
    case 'token': {
      let body = '';
      for await (const chunk of request) body += chunk;
      const form = new URLSearchParams(body);
      const code = JSON.parse(Buffer.from(form.get('code'), 'base64url').toString());
      const proof = createHash('sha256').update(form.get('code_verifier') ?? '').digest('base64url');
      if (proof !== code.challenge) return send(response, { error: 'invalid_grant' }, 400);
      if (code.person.wrong === 'endless') {
        response.writeHead(200, { 'content-type': 'application/json' });
        const chunk = ' '.repeat(65536);
        const more = () => { while (!response.destroyed && response.write(chunk)); };
        response.on('drain', more);
        return more();
      }
      if (code.person.wrong === 'redirect') {
        response.writeHead(307, { location: `${own.issuer}/token-elsewhere` });
        return response.end();
      }
      if (code.person.wrong === 'wordy') return send(response, { error: `\u0007\n<b>é${'x'.repeat(5000)}` }, 400);
      // Keys that are changed between the look at them and the token.
      if (code.person.wrong === 'rotated') {
        delete code.person.wrong;
        own.key = await keyOf('ES256');
      }
      const access_token = randomUUID();
      further.set(access_token, { sub: code.person.sub, ...code.person.at_userinfo });
      return send(response, { access_token, token_type: 'Bearer', expires_in: 300,
        id_token: await idToken(own, code) });
    }
    default:
      return send(response, {}, 404);
  }
}

const callback = provider.callback();
server.on('request', (request, response) => {
  const url = new URL(request.url, issuer);
  const failed = (error) => { response.writeHead(500); response.end(String(error?.stack ?? error)); };
  if (url.pathname.startsWith('/interaction/')) return interact(request, response).catch(failed);
  if (url.pathname.startsWith('/crooked/')) return beCrooked(request, response, url).catch(failed);
  return callback(request, response);
});

console.log(issuer);
// Nobody reads on.
console.log = console.info = console.error;
process.stdin.on('end', () => process.exit(0)).resume();
