// The browser's side of the app: sign-in, rows, batches and files. One ES module without dependencies.
//
//   import { createClient, where } from "/_/sdk.js";
//   const app = createClient();
//   await app.auth.anonymous();
//   const stop = app.db("todos").live({ order: "-created_at" }, (rows) => draw(rows));
//   const { rows } = await app.db("todos").list({ where: where`done == ${false}`, order: "-created_at" });
//
// Types: /_/sdk.d.ts

/** An access token is exchanged this long before its end, or after half of its life if that is later. */
const AHEAD_MS = 60_000;
/** The longest that one request may take; a refresh that hangs would hold up every tab. */
const PATIENCE_MS = 30_000;

/** What the app answered instead of what was asked for; `status` is 0 where nothing answered. */
export class AppError extends Error {
  constructor(status, problem, options) {
    super(problem.message ?? `the app answered ${status}`, options);
    this.name = "AppError";
    this.status = status;
    this.code = problem.code ?? (status >= 502 ? "unavailable" : "internal");
    this.hint = problem.hint;
    this.field = problem.field;
    this.requestId = problem.request_id;
  }
}

class Where {
  constructor(text) {
    this.text = text;
  }
  toString() {
    return this.text;
  }
}

/** A filter whose values cannot become part of the expression: where`title == ${title} && id in ${ids}`. */
export function where(parts, ...values) {
  return new Where(parts.reduce((text, part, i) => text + literal(values[i - 1]) + part));
}

function literal(value) {
  if (value instanceof Where) return `(${value})`;
  if (value instanceof Date) return JSON.stringify(value.toISOString());
  if (Array.isArray(value)) return `[${value.map(literal).join(", ")}]`;
  if (value === null || typeof value === "boolean" || typeof value === "bigint" || Number.isFinite(value)) return `${value}`;
  if (typeof value === "string") return JSON.stringify(value);
  throw new TypeError(`a filter takes no ${typeof value}: ${String(value)}`);
}

/** Versions of rows that came alone, for `ifMatch: row`. */
const versions = new WeakMap();

function remember(row, etag) {
  if (row && etag) versions.set(row, etag);
  return row;
}

function version(given) {
  const etag = typeof given === "object" ? versions.get(given) : given;
  if (etag === undefined) throw new TypeError("ifMatch takes a row as get, create or update gave it, or its ETag");
  return etag;
}

/** A session that all tabs share, or one in memory where the browser keeps no storage for this page. */
function sessionStore(name) {
  let memory = null;
  let area = null;
  const guarded = (use) => {
    try {
      return use();
    } catch {
      area = null;
      return memory;
    }
  };
  guarded(() => {
    area = globalThis.localStorage ?? null;
    area?.setItem(`${name}:probe`, "");
    area?.removeItem(`${name}:probe`);
  });
  return {
    isShared: () => area !== null,
    read: () => (area ? guarded(() => parsed(area.getItem(name))) : memory),
    write(session) {
      memory = session;
      // What does not fit must not leave the session before it behind.
      guarded(() => area?.removeItem(name));
      guarded(() => session && area?.setItem(name, JSON.stringify(session)));
    },
  };
}

function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}

let queue = Promise.resolve();

/** Runs `work` alone: in all tabs where the browser has Web Locks (secure contexts), else in this one. */
function alone(name, isShared, work) {
  if (isShared && globalThis.navigator?.locks) return navigator.locks.request(name, work);
  const turn = queue.then(work);
  queue = turn.catch(() => {});
  return turn;
}

/** A client of the app at `url`, the page's own origin by default; another origin needs the publishable `key`. */
export function createClient({ url = globalThis.location?.origin, key } = {}) {
  if (!url) throw new TypeError("createClient needs the url of the app outside of a page");
  const { origin } = new URL(url);
  const name = `app:${origin}`;
  const store = sessionStore(name);
  let typed = null;
  const listeners = new Set();
  const user = () => store.read()?.user ?? null;
  let announced = JSON.stringify(user());

  function announce() {
    const now = user();
    if (announced === JSON.stringify(now)) return;
    announced = JSON.stringify(now);
    for (const listener of listeners) queueMicrotask(() => listener(now));
  }

  function save(session) {
    store.write(session);
    announce();
  }

  // Another tab signed in or out; the key is null when everything was cleared.
  globalThis.addEventListener?.("storage", (event) => {
    if (event.key === name || event.key === null) announce();
  });

  // Whoever changes the session holds this lock and reads the session again inside: a refresh token works once,
  // and the server ends the whole session when it sees a spent one.
  const locked = (work) => alone(name, store.isShared(), work);
  const unlocked = (work) => work();

  /** One request as it stands: no session, no repetition. */
  async function ask(method, path, { body, bytes, ifMatch, idempotencyKey, token, keepalive, as, patience, signal, credentials = "omit", ...more } = {}) {
    const headers = { ...more.headers };
    if (body !== undefined) headers["content-type"] = "application/json";
    if (token) headers.authorization = `Bearer ${token}`;
    if (key) headers["steading-key"] = key;
    if (ifMatch !== undefined) headers["if-match"] = version(ifMatch);
    if (idempotencyKey !== undefined) headers["idempotency-key"] = idempotencyKey;
    const sent = bytes ?? JSON.stringify(body);
    const options = { method, headers, body: sent, credentials, cache: "no-store", keepalive };
    let answer, data;
    try {
      const patient = AbortSignal.timeout(patience ?? PATIENCE_MS);
      answer = await fetch(origin + path, { ...options, signal: signal ? AbortSignal.any([signal, patient]) : patient });
      if (as === "response" && answer.status !== 401) return { data: answer };
      if (as === "blob" && answer.ok) return { data: await answer.blob(), headers: answer.headers };
      data = await answer.text();
    } catch (cause) {
      if (signal?.aborted) throw cause;
      const problem = { code: "unavailable", message: "the app cannot be reached", hint: "check the connection" };
      throw new AppError(0, problem, { cause });
    }
    try {
      data = data === "" ? null : JSON.parse(data);
    } catch (cause) {
      // Something between here and the app has answered in its place.
      throw new AppError(answer.status, {}, { cause });
    }
    if (!answer.ok) throw new AppError(answer.status, data ?? {});
    return { data, etag: answer.headers.get("etag"), headers: answer.headers };
  }

  function accept({ data: { access_token, refresh_token, expires_in, user, mfa } }) {
    if (mfa) throw asked(mfa);
    const life = expires_in * 1000;
    const session = { access_token, refresh_token, user, renew_at: Date.now() + Math.max(life - AHEAD_MS, life / 2) };
    save(session);
    return session;
  }

  /** Spends the refresh token. The attempt is written down first: asked again with it, after an answer that never
   * came, the app knows us again instead of taking us for a thief. */
  function refreshed(held) {
    if (!held.attempt) {
      held.attempt = nonce();
      if (store.read()) store.write(held);
    }
    return ask("POST", "/_/auth/refresh", { body: { refresh_token: held.refresh_token, attempt: held.attempt } });
  }

  /** The session after `spent`: another tab's, or a new one; null where there is none any more. Needs the lock. */
  async function renew(spent) {
    const held = store.read();
    if (held?.access_token !== spent.access_token) return held;
    try {
      return accept(await refreshed(held));
    } catch (error) {
      if (error.status !== 401) throw error;
      save(null);
      return null;
    }
  }

  /** One request as the user who is signed in as it begins, and never as another one or as nobody. */
  async function call(method, path, options, exclusively = locked) {
    const meant = store.read();
    if (!meant) return ask(method, path, options);
    const renewed = async (spent) => {
      const held = await exclusively(() => renew(spent));
      if (held?.user.id === meant.user.id) return held;
      throw new AppError(401, { code: "unauthenticated", message: "the session has ended", hint: "sign in again" });
    };
    let held = meant;
    if (Date.now() >= meant.renew_at) {
      held = await renewed(meant).catch((error) => {
        // The token may still do; if not, the request itself says so.
        if (error.status === 401) throw error;
        return meant;
      });
    }
    try {
      return await ask(method, path, { ...options, token: held.access_token });
    } catch (error) {
      if (error.status !== 401) throw error;
      const { access_token: token } = await renewed(held);
      return ask(method, path, { ...options, token });
    }
  }

  /** An access token of who is signed in; null for nobody. */
  async function access() {
    const held = store.read();
    if (!held || Date.now() < held.renew_at) return held?.access_token ?? null;
    return (await locked(() => renew(held)))?.access_token ?? null;
  }

  /** To be called when the access token was refused: there is another one then, or nobody is signed in. */
  const spent = () => locked(() => store.read() && renew(store.read()));

  const live = realtime({ origin, key, access, spent, user });
  listeners.add(() => live.switched());

  const enter = async (path, body) => accept(await ask("POST", `/_/auth/${path}`, { body })).user;

  /** The same as who is here without an address, who becomes that account; null where a mail is to be read first. */
  async function keep(path, body) {
    const anonymous = user()?.anonymous;
    const answer = await (anonymous ? call : ask)("POST", `/_/auth/${path}`, { body }, unlocked);
    return answer.data.sent ? null : accept(answer).user;
  }

  const hold = (changed) => {
    const held = store.read();
    if (held?.user.id === changed.id) save({ ...held, user: changed });
  };
  const others = othersOf({ origin, ask, call, locked, unlocked, accept, keep, user, hold });

  const auth = {
    ...others,
    get user() {
      return user();
    },
    ready: (async () => {
      await others.returned;
      const held = store.read();
      // Without a network the user stays who they are.
      if (held && Date.now() >= held.renew_at) await locked(() => renew(held)).catch(() => {});
      return user();
    })(),
    onChange(listener) {
      listeners.add(listener);
      return () => void listeners.delete(listener);
    },
    anonymous: () => locked(async () => user() ?? enter("anonymous", {})),
    signUp: ({ email, password, redirect }) =>
      locked(async () => {
        const made = await keep("signup", { email, password, redirect });
        // Where a mail comes first, this page says again what was typed here: others may have typed something else.
        typed = made ? null : { email, password };
        return made;
      }),
    otp: async (email, { redirect } = {}) =>
      void (await (user()?.anonymous ? call : ask)("POST", "/_/auth/otp", { body: { email, redirect } })),
    verify: ({ email, code, token, password = typed?.email === email ? typed?.password : undefined }) =>
      locked(async () => {
        const made = await keep("otp/verify", { email, code, token, password });
        typed = null;
        return made;
      }),
    forgotPassword: async (email, { redirect } = {}) =>
      void (await ask("POST", "/_/auth/password/forgot", { body: { email, redirect } })),
    resetPassword: ({ email, code, token, password }) =>
      locked(() => enter("password/reset", { email, code, token, password })),
    changePassword: async ({ password, current }) =>
      void (await call("POST", "/_/auth/password", { body: { password, current } })),
    changeEmail: async ({ email, current }) => void (await call("POST", "/_/auth/email", { body: { email, current } })),
    verifyEmail: ({ email, code, token }) =>
      locked(async () => {
        const { data } = await call("POST", "/_/auth/email/verify", { body: { email, code, token } }, unlocked);
        hold(data.user);
        return data.user;
      }),
    linkToken(kind = "link") {
      const found = new URLSearchParams(globalThis.location?.hash.slice(1)).get(`auth_${kind}`);
      // It works once, and is nothing to keep in an address.
      if (found) history.replaceState(history.state, "", location.pathname + location.search);
      return found;
    },
    sessions: async () => (await call("GET", "/_/auth/sessions")).data.sessions,
    endSession: async (id) => void (await call("DELETE", `/_/auth/sessions/${segment(id)}`)),
    endOtherSessions: async () => void (await call("DELETE", "/_/auth/sessions")),
    export: async () => (await call("GET", "/_/auth/me/export")).data,
    deleteAccount: async ({ current } = {}) => {
      await call("DELETE", "/_/auth/me", { body: { current } });
      await locked(async () => save(null));
    },
    textCode: async (phone) => void (await ask("POST", "/_/auth/phone", { body: { phone } })),
    verifyText: ({ phone, code }) => locked(() => keep("phone/verify", { phone, code })),
    mfa: mfaOf({ call, enter: (path, body) => locked(() => enter(path, body)) }),
    passkey: passkeysOf({ call, ask, enter: (path, body) => locked(() => enter(path, body)) }),
    login: ({ email, password }) => {
      // The same where the address has to be confirmed first.
      typed = { email, password };
      return locked(() => enter("login", { email, password }));
    },
    logout: ({ everywhere } = {}) =>
      locked(async () => {
        const held = store.read();
        if (!held) return;
        // Here first: whoever closes the page at once has signed out all the same.
        save(null);
        const body = everywhere ? { everywhere } : undefined;
        const tell = (token) => ask("POST", "/_/auth/logout", { body, token, keepalive: true });
        try {
          await tell(held.access_token).catch(async (error) => {
            if (error.status !== 401) throw error;
            await tell((await refreshed(held)).data.access_token);
          });
        } catch (error) {
          // A session that has ended already is what was asked for.
          if (error.status !== 401) throw error;
        }
      }),
  };

  function db(table) {
    const path = `/_/db/${segment(table)}`;
    const one = (id) => `${path}/${segment(id)}`;
    const row = async (...request) => {
      const { data, etag } = await call(...request);
      return remember(data, etag);
    };
    const list = async ({ select, where: filter, order, expand, ...options } = {}) => {
      const names = { select: joined(select), order: joined(order), expand: joined(expand) };
      return (await call("POST", `${path}/query`, { body: { where: filter?.toString(), ...names, ...options } })).data;
    };
    async function* all(options) {
      let page = { cursor: options?.cursor };
      do {
        page = await list({ limit: 200, ...options, cursor: page.cursor });
        yield* page.rows;
      } while (page.cursor);
    }
    return {
      list,
      all,
      subscribe: (options, handler) => live.subscribe(segment(table), options, handler),
      live: (options, show, failed) => kept(all, (...asked) => live.subscribe(segment(table), ...asked), options, show, failed),
      aggregate: (numbers, options) => list({ ...options, aggregate: numbers }),
      get: async (id, { expand } = {}) =>
        row("GET", expand ? `${one(id)}?expand=${encodeURIComponent(joined(expand))}` : one(id)),
      create: (body, options) => row("POST", path, { body, ...only(options) }),
      update: async (id, body, options) => row("PATCH", one(id), { body, ...only(options) }),
      put: async (id, body, options) => row("PUT", one(id), { body, ...only(options) }),
      upsert: async (body, options) =>
        row("PUT", `${path}?by=${encodeURIComponent(joined(options.by))}`, { body, ...only(options) }),
      delete: async (id, options) => void (await call("DELETE", one(id), only(options))),
    };
  }

  async function batch(operations, options) {
    const wire = ({ ifMatch, ...operation }) =>
      ifMatch === undefined ? operation : { ...operation, if_match: version(ifMatch) };
    const { data } = await call("POST", "/_/batch", { body: { operations: operations.map(wire) }, ...only(options) });
    for (const { row, etag } of data.results) remember(row, etag);
    return data.results;
  }

  function fn(name) {
    const path = `/_/fn/${segment(name)}`;
    return {
      invoke: async (value = {}, { signal } = {}) => (await call("POST", path, { body: value, patience: LONG_MS, signal })).data,
      ...below(path),
    };
  }

  const below = (root) => {
    const at = (path = "") => root + path.replace(/^(?=[^/])/, "/");
    return {
      fetch: async (path, { method = "GET", headers, body, signal } = {}) => {
        const sent = { bytes: body, headers: Object.fromEntries(new Headers(headers)), patience: LONG_MS, as: "response", signal };
        return (await call(method, at(path), sent)).data;
      },
      // No header goes with a socket: a ticket says who it is.
      socket: async (path, protocols) => {
        const { data } = await call("POST", "/_/realtime/ticket");
        const url = origin.replace(/^http/, "ws") + at(path);
        return new WebSocket(`${url}${url.includes("?") ? "&" : "?"}_ticket=${data.ticket}`, protocols);
      },
    };
  };

  /** A service: a `Response`, as of `fetch`, of whatever its path says, or a socket. */
  const service = (name) => below(`/_/svc/${segment(name)}`);

  return { auth, db, batch, files: filesOf(call, origin), fn, service, channel: live.channel };
}

/** Something that nobody guesses; `crypto.randomUUID` is for secure contexts alone. */
const nonce = () => Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");

const only = ({ ifMatch, idempotencyKey } = {}) => ({ ifMatch, idempotencyKey });
const joined = (names) => (Array.isArray(names) ? names.join(",") : names);

/** A table's name or a row's id; anything else could lead to another path. */
function segment(text) {
  if (typeof text === "string" && /^[\w-]+$/.test(text)) return text;
  throw new TypeError(`not the name of a table or a function, or the id of a row: ${String(text)}`);
}
