
/** The ticket of who is to show a second factor. */
let ticket;

/** A first factor was right, and a second one is asked for: no session yet. */
function asked(mfa) {
  ticket = mfa.ticket;
  const problem = { code: "mfa_required", message: "a second factor is needed", hint: "app.auth.mfa.verify({ code })" };
  return Object.assign(new AppError(403, problem), { mfa });
}

const proof = ({ current, code, recoveryCode } = {}) => ({ current, code, recovery_code: recoveryCode });

/** Second factors of who is signed in, and the way in by one. */
function mfaOf({ call, enter }) {
  const post = async (path, body) => (await call("POST", `/_/auth/mfa/${path}`, { body })).data;
  return {
    verify: (shown) => enter("mfa/verify", { ticket: shown.ticket ?? ticket, ...proof(shown) }),
    list: async () => (await call("GET", "/_/auth/mfa")).data,
    enrol: ({ name, current } = {}) => post("totp", { name, current }),
    activate: async (code) => (await post("totp/verify", { code })).recovery_codes,
    renewCodes: async (shown) => (await post("recovery", proof(shown))).recovery_codes,
    remove: async (id, shown) => void (await call("DELETE", `/_/auth/mfa/${segment(id)}`, { body: proof(shown) })),
  };
}

const encoded = (buffer) =>
  btoa(String.fromCharCode(...new Uint8Array(buffer))).replace(/[+/=]/g, (sign) => ({ "+": "-", "/": "_" })[sign] ?? "");
const decoded = (text) => Uint8Array.from(atob(text.replace(/-/g, "+").replace(/_/g, "/")), (sign) => sign.charCodeAt(0));

/** Passkeys of who is signed in, and the way in by one. */
function passkeysOf({ call, ask, enter }) {
  const known = (list) => list?.map((one) => ({ ...one, id: decoded(one.id) }));
  return {
    isSupported: () => Boolean(globalThis.PublicKeyCredential),
    async register({ name, ...shown } = {}) {
      const { data } = await call("POST", "/_/auth/passkeys/options", { body: proof(shown) });
      const publicKey = {
        ...data,
        challenge: decoded(data.challenge),
        user: { ...data.user, id: decoded(data.user.id) },
        excludeCredentials: known(data.excludeCredentials),
      };
      const { response } = await navigator.credentials.create({ publicKey });
      const body = { name, client_data: encoded(response.clientDataJSON), attestation: encoded(response.attestationObject) };
      return (await call("POST", "/_/auth/passkeys", { body })).data;
    },
    async signIn({ mediation, signal } = {}) {
      const { data } = await ask("POST", "/_/auth/passkey/options", { body: {} });
      const publicKey = { ...data, challenge: decoded(data.challenge) };
      const { id, response } = await navigator.credentials.get({ publicKey, mediation, signal });
      return enter("passkey", {
        id,
        client_data: encoded(response.clientDataJSON),
        authenticator_data: encoded(response.authenticatorData),
        signature: encoded(response.signature),
        user: response.userHandle ? encoded(response.userHandle) : undefined,
      });
    },
    list: async () => (await call("GET", "/_/auth/passkeys")).data.passkeys,
    rename: async (id, name) => void (await call("PATCH", `/_/auth/passkeys/${segment(id)}`, { body: { name } })),
    remove: async (id, shown) => void (await call("DELETE", `/_/auth/passkeys/${segment(id)}`, { body: proof(shown) })),
  };
}
