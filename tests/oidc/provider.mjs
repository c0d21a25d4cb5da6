// The identity provider of tests/it/identity_provider.rs: `oidc-provider`, certified by the OpenID Foundation, over TLS
// on loopback. This module only configures it, as an operator would, and lets the test turn its keys and its clock.
//
//   node provider.mjs '{"port":0,"certificate":"…pem","key":"…pem","keys":"…json","tls_max":"TLSv1.3"}'
//
// Commands come by stdin and are answered by stdout, one JSON object a line. It ends with its stdin.
import { createPrivateKey, createPublicKey, createSecretKey, generateKeyPairSync, sign } from 'node:crypto';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import https from 'node:https';
import { createInterface } from 'node:readline';
import { Provider } from 'oidc-provider';

const settings = JSON.parse(process.argv[2]);
const say = (what) => process.stdout.write(`${JSON.stringify(what)}\n`);

// Keys outlive a restart, as they do in a real provider.
let number = 1;
let keys = existsSync(settings.keys) ? JSON.parse(readFileSync(settings.keys)) : generation();
if (keys.length > 0) number = Math.max(...keys.map((key) => Number(key.kid.split('-').pop())));
store();

function generation() {
  // By way of PEM: a key that comes from generateKeyPairSync as an object shares a lock with the job that made it, and
  // Node.js 20 waits for itself forever when the job is collected while the key is exported as a JWK.
  const pem = { publicKeyEncoding: { type: 'spki', format: 'pem' }, privateKeyEncoding: { type: 'pkcs8', format: 'pem' } };
  const jwk = (kid, more, type, options) => ({
    ...createPrivateKey(generateKeyPairSync(type, { ...options, ...pem }).privateKey).export({ format: 'jwk' }),
    kid: `${kid}-${number}`, ...more,
  });
  const rsa = { modulusLength: 2048 };
  return [
    jwk('rsa', { use: 'sig' }, 'rsa', rsa),
    jwk('ec', { use: 'sig', alg: 'ES256' }, 'ec', { namedCurve: 'P-256' }),
    jwk('okp', { use: 'sig', alg: 'EdDSA' }, 'ed25519', {}),
    jwk('enc', { use: 'enc', alg: 'RSA-OAEP' }, 'rsa', rsa),
  ];
}

function store() {
  writeFileSync(settings.keys, JSON.stringify(keys));
}

const key = (kid) => keys.find((one) => one.kid === kid);
const newest = (kind) => `${kind}-${number}`;

// What each resource's tokens are like. All but the first two are of no use to the service.
const audience = 'clm-service';
const resources = {
  'urn:test:rs256': () => ({ audience, jwt: { sign: { alg: 'RS256', kid: newest('rsa') } } }),
  'urn:test:es256': () => ({ audience, jwt: { sign: { alg: 'ES256', kid: newest('ec') } } }),
  'urn:test:elsewhere': () => ({ audience: 'elsewhere', jwt: { sign: { alg: 'RS256', kid: newest('rsa') } } }),
  'urn:test:eddsa': () => ({ audience, jwt: { sign: { alg: 'EdDSA', kid: newest('okp') } } }),
  'urn:test:ps256': () => ({ audience, jwt: { sign: { alg: 'PS256', kid: newest('rsa') } } }),
  // The secret is the public key, as everybody can read it.
  'urn:test:hs256': () => {
    const pem = createPublicKey(createPrivateKey({ key: key(newest('rsa')), format: 'jwk' })).export({ type: 'spki', format: 'pem' });
    return { audience, jwt: { sign: { alg: 'HS256', kid: newest('rsa'), key: createSecretKey(Buffer.from(pem)) } } };
  },
  'urn:test:opaque': () => ({ audience, accessTokenFormat: 'opaque' }),
};

const claims = {
  writer: { tenant_id: 'contoso', roles: ['sentinel:write'] },
  reader: { tenant_id: 'fabrikam', roles: ['sentinel:read'] },
  stranger: {},
};

const clients = Object.keys(claims).map((client_id) => ({
  client_id,
  client_secret: 'test-only',
  grant_types: ['client_credentials'],
  redirect_uris: [],
  response_types: [],
}));

let issuer;
let answer;

function configure() {
  const provider = new Provider(issuer, {
    clients,
    jwks: { keys },
    cookies: { keys: ['test-only'] },
    features: {
      clientCredentials: { enabled: true },
      devInteractions: { enabled: false },
      // Only for the encryption key in the set, which is one to send request objects with.
      encryption: { enabled: true },
      requestObjects: { enabled: true },
      resourceIndicators: {
        enabled: true,
        getResourceServerInfo: (_, resource) => ({
          scope: 'sentinel:read', accessTokenTTL: 600, accessTokenFormat: 'jwt', ...resources[resource](),
        }),
      },
    },
    extraTokenClaims: (_, token) => claims[token.clientId],
  });
  provider.on('server_error', (_, error) => console.error(error));
  answer = provider.callback();
}

const realNow = Date.now;
const commands = {
  // New keys sign from now on; the old ones stay in the set.
  rotate() {
    number += 1;
    keys = [...generation(), ...keys];
  },
  // Only the newest keys stay.
  retire() {
    keys = keys.filter((one) => one.kid.endsWith(`-${number}`));
  },
  // Tokens are dated so many seconds off.
  clock({ offset_s }) {
    Date.now = () => realNow() + offset_s * 1000;
  },
  // What nobody gets from the token endpoint: any message, signed by any of the RSA keys.
  sign({ kind, message }) {
    const signer = createPrivateKey({ key: key(newest(kind)), format: 'jwk' });
    return { signed: sign('sha256', Buffer.from(message), signer).toString('base64url') };
  },
};

const server = https.createServer(
  { cert: readFileSync(settings.certificate), key: readFileSync(settings.key), maxVersion: settings.tls_max },
  (request, response) => answer(request, response),
);
server.listen(settings.port, '127.0.0.1', () => {
  issuer = `https://localhost:${server.address().port}`;
  configure();
  say({ port: server.address().port });
});
createInterface({ input: process.stdin })
  .on('line', (line) => {
    const command = JSON.parse(line);
    const said = commands[command.do](command);
    store();
    configure();
    say({ done: command.do, ...said });
  })
  .on('close', () => process.exit(0));
