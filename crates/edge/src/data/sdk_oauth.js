
/** Signing in by somebody else's word. The page goes away to the provider and comes back with a code in its address, which
 * is worth nothing without the verifier that stayed in this tab: an address that somebody else has made opens nothing. */
function othersOf({ origin, ask, call, locked, unlocked, accept, keep, user, hold }) {
  const place = `app:${origin}:away`;

  /** What this tab has kept while it was away, once. */
  function kept() {
    try {
      const away = parsed(sessionStorage.getItem(place));
      sessionStorage.removeItem(place);
      return away;
    } catch {
      return null;
    }
  }

  async function leave(provider, redirect, link) {
    if (!globalThis.crypto?.subtle) throw new TypeError("signing in by a provider needs HTTPS");
    const verifier = nonce() + nonce();
    const digest = await crypto.subtle.digest("SHA-256", new TextEncoder().encode(verifier));
    const base64 = btoa(String.fromCharCode(...new Uint8Array(digest)));
    const challenge = base64.replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
    sessionStorage.setItem(place, JSON.stringify({ provider, verifier, link }));
    const query = new URLSearchParams({ redirect: redirect ?? location.href.split("#")[0], challenge });
    location.assign(`${origin}/_/auth/oauth/${segment(provider)}/start?${query}`);
    // The page is on its way; nothing comes after this.
    return new Promise(() => {});
  }

  async function back() {
    const found = new URLSearchParams(globalThis.location?.hash.slice(1));
    const [code, error] = [found.get("auth_oauth"), found.get("auth_oauth_error")];
    if (!code && !error) return null;
    history.replaceState(history.state, "", location.pathname + location.search);
    const away = kept();
    // Not begun here: it is somebody else's.
    if (!away) return null;
    const { provider, verifier, link } = away;
    if (error) return { provider, error };
    try {
      await locked(async () => {
        if (link && user()?.id !== link) {
          throw new AppError(401, { code: "unauthenticated", message: "another user is signed in by now" });
        }
        const body = { code, verifier, link: !!link };
        // The one request with a cookie: that of the browser that was away.
        const options = { body, credentials: "same-origin" };
        const answer = await (link || user()?.anonymous ? call : ask)("POST", "/_/auth/oauth/token", options, unlocked);
        if (answer.data.access_token) accept(answer);
        else hold(answer.data.user);
      });
      return { provider, linked: !!link };
    } catch ({ code: error, message, mfa }) {
      return { provider, error, message, mfa };
    }
  }

  return {
    returned: back(),
    signInWith: (provider, { redirect } = {}) => leave(provider, redirect, null),
    async link(provider, { redirect } = {}) {
      if (!user()) throw new AppError(401, { code: "unauthenticated", message: "nobody is signed in" });
      return leave(provider, redirect, user().id);
    },
    identities: async () => (await call("GET", "/_/auth/identities")).data.identities,
    unlink: async (provider) => void (await call("DELETE", `/_/auth/identities/${segment(provider)}`)),
    custom: (token) => locked(() => keep("custom", { token })),
  };
}
