// A certified OpenID provider (npm: oidc-provider) that people sign in with.
// Usage: node openid_provider.mjs PORT CERTIFICATE KEY REDIRECT_URI
import { createRequire } from "node:module";
import { readFileSync } from "node:fs";
import https from "node:https";

const require = createRequire(new URL("../.tools/npm/", import.meta.url));
const { default: Provider } = await import(require.resolve("oidc-provider"));
const [port, certificate, key, redirectUri] = process.argv.slice(2);

const provider = new Provider(`https://127.0.0.1:${port}`, {
  clients: [{ client_id: "postern", client_secret: "a secret: of 2 words & more", redirect_uris: [redirectUri] }],
  claims: { openid: ["sub"], email: ["email", "email_verified"], profile: ["name", "preferred_username"] },
  // What a client asks for in scopes is in the user information, not in the ID token.
  findAccount: (_, sub) => ({
    accountId: sub,
    claims: () => ({
      sub, email: `${sub}@corp.example`, email_verified: true, name: "Alice Liddell", preferred_username: sub,
    }),
  }),
});
const tls = { cert: readFileSync(certificate), key: readFileSync(key) };
https.createServer(tls, provider.callback()).listen(Number(port), "127.0.0.1", () => console.log("provider listens"));
