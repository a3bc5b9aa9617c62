// Types of /_/sdk.js.

/** Somebody who uses the app. */
export interface User {
  readonly id: string;
  readonly email: string | null;
  readonly phone: string | null;
  /** Whether the address was confirmed by mail; access rules see it only then. */
  readonly email_verified: boolean;
  readonly role: string;
  /** Signed in without an account; `signUp`, `link` or `signInWith` makes one of it and keeps its rows. */
  readonly anonymous: boolean;
  readonly created_at: string;
}

export interface Credentials {
  email: string;
  password: string;
}

export interface Leading {
  /** Where the mail's link leads on to: a path of the app, or an address that `auth.redirects` lists. */
  redirect?: string;
}

/** The code with its address, or what the link has brought. */
export type Mailed = { email: string; code: string; token?: never } | { token: string; email?: never; code?: never };

export interface SessionInfo {
  readonly id: string;
  /** The one that asks. */
  readonly current: boolean;
  readonly method: string;
  readonly device: string | null;
  readonly created_at: string;
  readonly used_at: string;
}

export interface Auth extends Others {
  /** Who is signed in, as far as this browser knows. */
  readonly user: User | null;
  /** Settles once a session that was kept from before has been renewed or given up. Never rejects. */
  readonly ready: Promise<User | null>;
  /** Calls `listener` when another user is signed in, nobody any more, or the user has changed; in any tab. */
  onChange(listener: (user: User | null) => void): () => void;
  /** The user who is signed in, else a new anonymous one. */
  anonymous(): Promise<User>;
  /** A new account. An anonymous user becomes that account, with the same id and rows. Null where the app confirms
   * addresses: then `verify` with the code of the mail makes it. */
  signUp(credentials: Credentials & Leading): Promise<User | null>;
  login(credentials: Credentials): Promise<User>;
  /** Mails a code and a link to sign in with. Tells nothing of who has an account. */
  otp(email: string, options?: Leading): Promise<void>;
  /** Signs in, or signs up, with what was mailed. An anonymous user becomes the account of a new address. The password
   * that was given to `signUp` in this page is said again by itself. */
  verify(mailed: Mailed & { password?: string }): Promise<User>;
  /** Mails a code and a link to set a new password with. */
  forgotPassword(email: string, options?: Leading): Promise<void>;
  /** Sets a new password and signs in; all other sessions end. */
  resetPassword(mailed: Mailed & { password: string }): Promise<User>;
  /** `current` is needed ten minutes after signing in. The other sessions end. */
  changePassword(change: { password: string; current?: string }): Promise<void>;
  /** Mails a code and a link to the new address; `current` as for `changePassword`. */
  changeEmail(change: { email: string; current?: string }): Promise<void>;
  /** The new address holds from now on. */
  verifyEmail(mailed: Mailed): Promise<User>;
  /** What a mailed link has brought to this page, for `verify`, once. Call `verify` when somebody clicks: programs that
   * look through mail open links too. */
  linkToken(kind?: "link" | "reset"): string | null;
  /** Has a code sent to a phone, `+49…`. Tells nothing of who has an account. */
  textCode(phone: string): Promise<void>;
  /** Signs in, or signs up, with what was sent. An anonymous user becomes the account of a new number. */
  verifyText(sent: { phone: string; code: string }): Promise<User>;
  /** Second factors. Where an account has one, whatever signs in throws an error whose `mfa` is set: then `mfa.verify`. */
  readonly mfa: Mfa;
  /** Passkeys of this device and others, where `passkey` is among the app's methods. */
  readonly passkey: Passkeys;
  sessions(): Promise<SessionInfo[]>;
  endSession(id: string): Promise<void>;
  endOtherSessions(): Promise<void>;
  /** The account, its rows by table, and where its files are. */
  export(): Promise<{ user: User; identities: Identity[]; rows: Record<string, object[]>; files: { path: string; size: number }[] }>;
  /** Removes the account, and the rows and files that it may remove; `current` as for `changePassword`. */
  deleteAccount(options?: { current?: string }): Promise<void>;
  /** Signs out here, also where the app cannot be reached (then it rejects, for the server does not know). */
  logout(options?: { everywhere?: boolean }): Promise<void>;
}

/** What every row has by itself. */
export interface Stored {
  readonly id: string;
  /** The id of the user whose row it is, in tables whose access rules mention an owner. */
  readonly owner?: string | null;
  readonly created_at: string;
  readonly updated_at: string;
}

export type Row<T> = T & Stored & Expanded;
export interface Expanded {
  /** What `expand` brought along, by the names given there: a row, null, or { rows, cursor? }. */
  readonly expand?: Readonly<Record<string, unknown>>;
}

export type Column<T> = Extract<keyof (T & Stored), string>;
export type Order<T> = Column<T> | `-${Column<T>}`;

/** A filter made by `where`. */
export interface Where {
  toString(): string;
  /** Keeps plain text apart: an expression put together by hand is a `string`. */
  readonly text: string;
}

export type Literal = string | number | bigint | boolean | null | Date | Where | readonly Literal[];

export interface ListOptions<T, K extends Column<T> = Column<T>> {
  /** Columns; all by default. */
  select?: readonly K[];
  /** Which rows, e.g. where`done == ${false}`. */
  where?: Where | string;
  /** Columns to sort by; a minus sign in front sorts from the greatest down. */
  order?: Order<T> | readonly Order<T>[];
  /** Rows of a page: 50 by default, at most 200. */
  limit?: number;
  /** Where the page before this one ended. */
  cursor?: string;
  /** Words that rows must have, in tables that the manifest lets be searched; the last one may be a beginning. */
  search?: string;
  /** Rows to bring along: "list", "list.team", or "comments_via_post" for those that refer to this one. */
  expand?: string | readonly string[];
}

export interface Page<R> {
  rows: R[];
  /** Missing on the last page. */
  cursor?: string;
}

export interface Once {
  /** Of a change that is sent again under the same key, within a day, only the first is made. For who is signed in. */
  idempotencyKey?: string;
}

export interface Versioned {
  /** Only if the row is still as `get`, `create` or `update` gave it (or its ETag): else status 412. */
  ifMatch?: object | string;
}

export interface Groups {
  /** A row for each group: the columns of `group`, then the numbers. */
  groups: Record<string, string | number | boolean | null>[];
  /** There are more than `limit`. */
  more?: boolean;
}

export interface GroupOptions<T> {
  where?: Where | string;
  search?: string;
  /** Columns to count apart by. */
  group?: readonly Column<T>[];
  /** Names of numbers and of columns of `group`. */
  order?: string | readonly string[];
  limit?: number;
}

export type Found<T, K extends Column<T>> = Pick<T & Stored, K> & Expanded;

export interface Table<T extends object, New extends object = Partial<T>, Change extends object = Partial<T>> {
  list<const K extends Column<T> = Column<T>>(options?: ListOptions<T, K>): Promise<Page<Found<T, K>>>;
  /** Every row, page by page. */
  all<const K extends Column<T> = Column<T>>(options?: ListOptions<T, K>): AsyncGenerator<Found<T, K>, void, void>;
  /** Numbers over the rows that may be listed: { n: "count()", total: "sum(price)" }; also avg, min, max. */
  aggregate(numbers: Readonly<Record<string, string>>, options?: GroupOptions<T>): Promise<Groups>;
  get(id: string, options?: { expand?: string | readonly string[] }): Promise<Row<T>>;
  create(row: New, options?: Once): Promise<Row<T>>;
  update(id: string, patch: Change, options?: Versioned & Once): Promise<Row<T>>;
  /** Makes the row of this id, or changes the one that is there. */
  put(id: string, row: New, options?: Versioned & Once): Promise<Row<T>>;
  /** As `put`, for the row with the same values in unique columns. */
  upsert(row: New, options: { by: Column<T> | readonly Column<T>[] } & Versioned & Once): Promise<Row<T>>;
  delete(id: string, options?: Versioned & Once): Promise<void>;
  /** Calls `handler` at each change of rows that the user may list. Returns what ends it. */
  subscribe<const K extends Column<T> = Column<T>>(
    options: Pick<ListOptions<T, K>, "select" | "where">,
    handler: (event: RowEvent<Pick<T & Stored, K | "id">>) => void,
  ): Stop;
  /** Calls `show` with all rows, in order, at first and after each change; `failed` where they cannot be had. */
  live<const K extends Column<T> = Column<T>>(
    options: Pick<ListOptions<T, K>, "select" | "where" | "order">,
    show: (rows: Pick<T & Stored, K | "id">[]) => void,
    failed?: (error: Error) => void,
  ): Stop;
}

/** One step of a batch; a batch has at most 50 and is done wholly or not at all. */
export type Operation =
  | { do: "get"; on: string; id: string }
  | { do: "create"; on: string; new: object }
  | ({ do: "update"; on: string; id: string; new: object } & Versioned)
  | ({ do: "delete"; on: string; id: string } & Versioned);

export interface Result {
  status: number;
  row?: Row<Record<string, unknown>>;
  etag?: string;
}

export interface Service {
  /** Its answer to a request, below it where a path is given; 401 is an AppError. */
  fetch(path?: string, init?: Pick<RequestInit, "method" | "headers" | "body" | "signal">): Promise<Response>;
  /** A WebSocket to it, as whoever is signed in; it ends with their session, and after a quarter of an hour at the latest. */
  socket(path?: string, protocols?: string | string[]): Promise<WebSocket>;
}

export interface Fn extends Service {
  /** Calls it with a JSON value and gives back its JSON answer. */
  invoke<T = unknown>(value?: unknown, options?: { signal?: AbortSignal }): Promise<T>;
}

export interface Client {
  readonly auth: Auth;
  db<T extends object = Record<string, unknown>>(table: string): Table<T>;
  batch(operations: readonly Operation[], options?: Once): Promise<Result[]>;
  /** The files of a bucket. */
  files(bucket: string): Bucket;
  /** A function of the app. */
  fn(name: string): Fn;
  /** A service of the app. */
  service(name: string): Service;
  /** Joins a channel, which the manifest must name. */
  channel<S extends object = Record<string, unknown>>(name: string): Channel<S>;
}

export interface ClientOptions {
  /** Where the app is; the page's own origin by default. */
  url?: string;
  /** The publishable key, which the app asks for from pages of other origins. */
  key?: string;
}

export function createClient(options?: ClientOptions): Client;

/** A filter whose values cannot become part of the expression. */
export function where(parts: TemplateStringsArray, ...values: readonly Literal[]): Where;

export type Code =
  | "invalid_input"
  | "unauthenticated"
  | "forbidden"
  | "not_found"
  | "conflict"
  | "too_large"
  | "rate_limited"
  | "quota_exceeded"
  | "budget_exceeded"
  | "unavailable"
  | "timeout"
  | "internal";

/** What the app answered instead of what was asked for. */
export class AppError extends Error {
  /** The HTTP status; 0 where nothing answered. */
  readonly status: number;
  readonly code: Code;
  /** What to do about it. */
  readonly hint?: string;
  /** What was wrong with the input, as a JSON pointer. */
  readonly field?: string;
  readonly requestId?: string;
}
