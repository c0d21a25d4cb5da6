// A tiny identity provider for the demo: a discovery document, a key set, and tokens for whoever asks on the command
// line. It shows what the service needs from a real one, and is none: it checks nobody.
//
//   node issuer.mjs serve                                                   on port 8443, over TLS
//   node issuer.mjs token [--tenant demo] [--role sentinel:write] [--minutes 60]   prints a token
//
// Environment: ISSUER (https://issuer:8443), AUDIENCE (clm-service), FOLDER (/demo) with issuer.crt, issuer.key, and
// where its own signing key is kept.

import { createPrivateKey, createPublicKey, createHash, generateKeyPairSync, randomUUID, sign } from 'node:crypto';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:https';
import { join } from 'node:path';

const issuer = process.env.ISSUER ?? 'https://issuer:8443';
const audience = process.env.AUDIENCE ?? 'clm-service';
const folder = process.env.FOLDER ?? '/demo';

function signingKey() {
  const file = join(folder, 'signing-key.pem');
  if (!existsSync(file)) {
    // As text from the beginning: Node.js 20 may wait for itself forever when a key that it has just made is exported.
    const { privateKey } = generateKeyPairSync('ec', {
      namedCurve: 'P-256',
      publicKeyEncoding: { type: 'spki', format: 'pem' },
      privateKeyEncoding: { type: 'pkcs8', format: 'pem' },
    });
    // Whoever comes second takes the key of the first.
    try {
      writeFileSync(file, privateKey, { mode: 0o600, flag: 'wx' });
    } catch (error) {
      if (error.code !== 'EEXIST') throw error;
    }
  }
  return createPrivateKey(readFileSync(file));
}

const key = signingKey();
const publicKey = createPublicKey(key).export({ format: 'jwk' });
const kid = createHash('sha256').update(publicKey.x + publicKey.y).digest('base64url').slice(0, 16);

function token({ tenant = 'demo', role = 'sentinel:write', minutes = '60' }) {
  const now = Math.floor(Date.now() / 1000);
  const part = (value) => Buffer.from(JSON.stringify(value)).toString('base64url');
  const body = `${part({ alg: 'ES256', typ: 'JWT', kid })}.${part({
    iss: issuer, aud: audience, sub: 'demo', jti: randomUUID(), iat: now, exp: now + 60 * Number(minutes),
    tenant_id: tenant, roles: [role],
  })}`;
  return `${body}.${sign('sha256', Buffer.from(body), { key, dsaEncoding: 'ieee-p1363' }).toString('base64url')}`;
}

const documents = {
  '/.well-known/openid-configuration': {
    issuer, jwks_uri: `${issuer}/keys`, id_token_signing_alg_values_supported: ['ES256'],
    response_types_supported: ['id_token'], subject_types_supported: ['public'],
  },
  '/keys': { keys: [{ ...publicKey, kid, use: 'sig', alg: 'ES256' }] },
};

const [word = 'serve', ...rest] = process.argv.slice(2);
if (word === 'token') {
  const wanted = {};
  for (let i = 0; i + 1 < rest.length; i += 2) wanted[rest[i].replace(/^--/, '')] = rest[i + 1];
  console.log(token(wanted));
} else if (word === 'serve') {
  const tls = { cert: readFileSync(join(folder, 'issuer.crt')), key: readFileSync(join(folder, 'issuer.key')), minVersion: 'TLSv1.3' };
  const server = createServer(tls, (request, reply) => {
    const document = documents[request.url];
    reply.writeHead(document ? 200 : 404, { 'content-type': 'application/json' });
    reply.end(JSON.stringify(document ?? { error: 'not_found' }));
  });
  server.listen(Number(process.env.PORT ?? 8443), () => console.log(`issuer ${issuer}, key ${kid}`));
  for (const signal of ['SIGTERM', 'SIGINT']) process.on(signal, () => server.close(() => process.exit(0)));
} else {
  console.error('usage: node issuer.mjs serve | token [--tenant T] [--role R] [--minutes N]');
  process.exit(2);
}
