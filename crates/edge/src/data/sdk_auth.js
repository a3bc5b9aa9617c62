
/** The ticket of who is to show a second factor. */
let ticket;

/** A first factor was right, and a second one is asked for: no session yet. */
function asked(mfa) {
  ticket = mfa.ticket;
  const problem = { code: "mfa_required", message: "a second factor is needed", hint: "app.auth.mfa.verify({ code })" };
  return Object.assign(new SteadingError(403, problem), { mfa });
}

/** Second factors of who is signed in, and the way in by one. */
function mfaOf({ call, enter }) {
  const proof = ({ current, code, recoveryCode } = {}) => ({ current, code, recovery_code: recoveryCode });
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
