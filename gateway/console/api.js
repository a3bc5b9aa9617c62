// The platform's public routes, asked as the key that was shown at the sign-in. The key itself is not here: the browser has a
// cookie that no script can read, and this page has its other half, which opens nothing alone.

const PROOF = "steading-console-proof";
const TENANT = "steading-console-tenant";

/** Who is signed in, and in which tenant an operator works. */
export const here = { session: null, tenant: null };

/** A refusal, with what to do next. */
export class Problem extends Error {
  constructor(status, body) {
    super(body.message ?? `the platform answered ${status}`);
    Object.assign(this, { status, code: body.code, hint: body.hint, field: body.field, request: body.request_id });
  }
}

function kept(name) {
  try {
    return localStorage.getItem(name);
  } catch {
    return null;
  }
}

function keep(name, value) {
  try {
    if (value === null) localStorage.removeItem(name);
    else localStorage.setItem(name, value);
  } catch {
    // Without storage it lasts as long as this page.
  }
}

/** The tenant that is worked in is this tab's alone. */
function of_this_page(chosen) {
  try {
    if (chosen === null) sessionStorage.removeItem(TENANT);
    else sessionStorage.setItem(TENANT, chosen);
  } catch {
    // Without storage it lasts as long as this page.
  }
}

let proof = kept(PROOF);

async function ask(method, path, { body, env, elsewhere } = {}) {
  const headers = { accept: "application/json" };
  if (proof) headers["steading-console"] = proof;
  if (env) headers["steading-env"] = env;
  // An operator acts in the tenant that the bar names, and in no other one by the name of an environment.
  if (here.session?.who === "operator" && !elsewhere && path.startsWith("/v1/")) headers["steading-tenant"] = tenant().slug;
  if (body !== undefined) headers["content-type"] = "application/json";
  let response;
  try {
    response = await fetch(path, {
      method, headers, body: body === undefined ? undefined : JSON.stringify(body),
      credentials: "same-origin", redirect: "error", cache: "no-store", referrerPolicy: "no-referrer",
    });
  } catch {
    throw new Problem(0, { message: "the platform cannot be reached", hint: "look whether it runs, then try again" });
  }
  if (response.ok) return response;
  const told = await response.json().catch(() => ({}));
  const problem = new Problem(response.status, told);
  if (response.status === 401 && here.session) document.dispatchEvent(new CustomEvent("signed-out", { detail: problem }));
  throw problem;
}

/** JSON of a route. `elsewhere` asks it in no tenant but the key's own. */
export async function get(path, query = {}, options = {}) {
  const asked = new URLSearchParams(Object.entries(query).filter(([, value]) => value !== undefined && value !== null && value !== ""));
  return (await ask("GET", asked.size ? `${path}?${asked}` : path, options)).json();
}

export async function send(method, path, body, options = {}) {
  const response = await ask(method, path, { ...options, body });
  return response.status === 204 ? {} : response.json();
}

/** A tool, in an environment. */
export const tool = (name, input, env) => send("POST", `/v1/tools/${name}`, input, { env });

/** Slugs of environments by their ids, of the first page; none where they cannot be listed. */
export async function env_names() {
  if (here.session.env || !may("env:read")) return new Map();
  const { environments } = await get("/v1/envs");
  return new Map(environments.map(({ env, slug }) => [env, slug]));
}

/** A file of a route, saved by the browser. */
export async function download(path, name) {
  const content = await (await ask("GET", path)).blob();
  const address = URL.createObjectURL(content);
  const anchor = document.createElement("a");
  Object.assign(anchor, { href: address, download: name });
  anchor.click();
  setTimeout(() => URL.revokeObjectURL(address), 60_000);
}

/** Signs in by `{ key }`, or by `{ tenant, email, password }`. */
export async function sign_in(shown) {
  begun(await send("POST", "/console/session", shown));
}

/** How people sign in beside by a key and a password. */
export const ways = () => get("/console/ways");

/** Signs in who comes from the directory; says which page they were on their way to. */
export async function arrive(ticket) {
  const { next, ...told } = await send("POST", "/console/session", { ticket });
  begun(told);
  return next;
}

/** Whom an invitation is for. */
export const invited = (invitation) => send("POST", "/console/invitation", { invitation });

/** Takes an invitation up, and signs in. */
export async function join(wanted) {
  begun(await send("POST", "/console/join", wanted));
}

function begun(told) {
  ({ proof } = told);
  keep(PROOF, proof);
  entered(told);
}

/** Who is signed in already; null where nobody is. */
export async function resume() {
  if (!proof) return null;
  try {
    entered(await get("/console/session"));
  } catch (problem) {
    if (problem.status !== 401 && problem.status !== 403) throw problem;
    forget();
  }
  return here.session;
}

export async function sign_out() {
  const left = send("DELETE", "/console/session");
  await left.catch(() => null);
  forget();
}

export function forget() {
  // Another tab may have signed in anew.
  if (kept(PROOF) === proof) keep(PROOF, null);
  proof = null;
  of_this_page(null);
  Object.assign(here, { session: null, tenant: null });
}

function entered({ proof: _, ...told }) {
  here.session = told;
  try {
    here.tenant = is_operator() ? JSON.parse(sessionStorage.getItem(TENANT) ?? "null") : null;
  } catch {
    here.tenant = null;
  }
}

/** Works in a tenant from now on; in the key's own, where there is none. */
export function choose(tenant) {
  here.tenant = tenant && tenant.slug !== here.session.tenant.slug ? { slug: tenant.slug, name: tenant.name } : null;
  of_this_page(here.tenant ? JSON.stringify(here.tenant) : null);
}

export const may = (scope) => here.session?.key.scopes.includes(scope) ?? false;
export const is_operator = () => here.session?.who === "operator";
/** The tenant that is worked in. */
export const tenant = () => here.tenant ?? here.session.tenant;
