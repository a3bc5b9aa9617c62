
/** Nothing is heard for longer than this only where the connection is dead: the app says something every 20 seconds. */
const SILENCE_MS = 60_000;
/** The connection is tried again after this long, doubled each time up to the most. */
const RETRY_MS = 500;
const RETRY_MOST_MS = 30_000;
/** A connection that nobody needs is closed after this long. */
const LINGER_MS = 1_000;

/** One connection for all subscriptions and channels; it comes back by itself, and goes on where it was. */
function realtime({ origin, key, access, spent, user }) {
  const subs = new Map();
  const rooms = new Map();
  const sending = new Map();
  let names = 0;
  let socket = null;
  let ready = false;
  let attempts = 0;
  let timer, silence, linger, shown;
  let as = user()?.id;

  const needed = () => subs.size > 0 || rooms.size > 0;
  const say = (message) => ready && socket.send(JSON.stringify(message));

  function connect() {
    clearTimeout(timer);
    if (socket || !needed()) return;
    const mine = new WebSocket(`${origin.replace(/^http/, "ws")}/_/realtime`);
    socket = mine;
    const current = (act) => (event) => mine === socket && act(event);
    mine.onopen = current(async () => {
      shown = await access().catch(() => null);
      if (mine === socket) mine.send(JSON.stringify({ type: "hello", token: shown, key }));
    });
    mine.onmessage = current(({ data }) => {
      clearTimeout(silence);
      silence = setTimeout(lost, SILENCE_MS);
      hear(JSON.parse(data));
    });
    mine.onclose = current(lost);
    mine.onerror = () => {};
    silence = setTimeout(lost, SILENCE_MS);
  }

  /** The connection is gone: what waits for an answer fails, the rest is asked for again. */
  function lost() {
    const gone = socket;
    [socket, ready] = [null, false];
    gone?.close();
    clearTimeout(silence);
    const cause = new AppError(0, { code: "unavailable", message: "the connection was lost" });
    for (const { reject } of sending.values()) reject(cause);
    sending.clear();
    if (!needed()) return;
    const wait = Math.min(RETRY_MS * 2 ** attempts++, RETRY_MOST_MS);
    timer = setTimeout(connect, wait * (0.5 + Math.random() / 2));
  }

  globalThis.addEventListener?.("online", () => {
    attempts = 0;
    connect();
  });

  function ask(sub) {
    const { name, table, options, after } = sub;
    say({ type: "subscribe", sub: name, table, ...options, ...(after && { after }) });
  }

  function enter(room) {
    say({ type: "join", channel: room.name, ...(room.state && { state: room.state }) });
  }

  async function hear(message) {
    const { type, at } = message;
    const sub = subs.get(message.sub);
    const room = rooms.get(message.channel);
    if (type === "ready") {
      [ready, attempts] = [true, 0];
      subs.forEach(ask);
      rooms.forEach(enter);
    } else if (type === "beat") {
      // A token is renewed before it ends; the connection goes on with the new one.
      const token = await access().catch(() => shown);
      if (token !== shown && as === user()?.id && say({ type: "hello", token }) !== false) shown = token;
      for (const sub of subs.values()) if (sub.after) sub.after = at;
    } else if (type === "end") {
      if (message.reason === "session_ended") await spent().catch(() => {});
      if (message.reason !== "slow_consumer") attempts = 0;
    } else if (type === "error") {
      fail(message, sub, room);
    } else if (type === "sent") {
      sending.get(message.reference)?.resolve();
      sending.delete(message.reference);
    } else if (sub) {
      const { row } = message;
      // How far the others are says nothing before this one has begun.
      if (at) sub.after = at;
      if (type === "subscribed") {
        sub.begin();
        // What changed before somebody has listened is not told.
        if (!message.resumed) sub.tell({ type: "reset" });
      } else if (type === "reset" || row) sub.tell(row ? { type, row } : { type });
    } else if (room) {
      room.hear(message);
    }
  }

  async function fail(message, sub, room) {
    const error = new AppError(message.status ?? 0, message);
    if (!ready) {
      // The first message was refused, and the connection is about to close: with a token that has ended, or for ever.
      if (error.code === "unauthenticated") return void spent().catch(() => {});
      if (error.code !== "forbidden" && error.code !== "invalid_input") return;
      for (const it of [...subs.values(), ...rooms.values()]) it.fail(error);
      subs.clear();
      rooms.clear();
    } else if (sub) {
      subs.delete(sub.name);
      sub.fail(error);
    } else if (room) {
      if (room.joined) {
        for (const [reference, { channel, reject }] of sending) {
          if (channel === room.name) sending.delete(reference), reject(error);
        }
      } else {
        rooms.delete(room.name);
        room.fail(error);
      }
    }
  }

  /** Another user sees other rows: everything begins anew, as them. */
  function switched() {
    if (as === user()?.id) return;
    as = user()?.id;
    for (const sub of subs.values()) {
      sub.after = undefined;
      sub.tell({ type: "reset" });
    }
    attempts = 0;
    if (socket) lost();
  }

  function rest() {
    clearTimeout(linger);
    linger = setTimeout(() => !needed() && socket && lost(), LINGER_MS);
  }

  function promised(handler) {
    let begin, refuse;
    const ready = new Promise((resolve, reject) => ([begin, refuse] = [resolve, reject]));
    // Who does not wait for it is told by the handler.
    ready.catch(() => {});
    return { ready, begin, fail: (error) => (refuse(error), handler?.(error)) };
  }

  function subscribe(table, { where: filter, select } = {}, handler) {
    const name = `s${++names}`;
    const options = { where: filter?.toString(), select: joined(select) };
    const { ready, begin, fail } = promised((error) => handler({ type: "error", error }));
    subs.set(name, { name, table, options, begin, fail, tell: handler });
    if (socket) ask(subs.get(name));
    else connect();
    const stop = () => {
      if (subs.delete(name)) say({ type: "unsubscribe", sub: name });
      rest();
    };
    return Object.assign(stop, { ready });
  }

  function channel(name) {
    if (rooms.has(name)) throw new TypeError(`this page is in the channel ${name} already`);
    const heard = new Map();
    const watchers = new Set();
    const members = new Map();
    const { ready, begin, fail } = promised();
    const show = () => watchers.forEach((watcher) => watcher([...members.values()]));
    const room = {
      name,
      joined: false,
      state: null,
      fail,
      hear(message) {
        const { type, event, member } = message;
        if (type === "joined") {
          room.joined = true;
          members.clear();
          for (const each of message.members) members.set(each.id, each);
          begin();
          show();
        } else if (type === "presence") {
          if (event === "leave") members.delete(member.id);
          else members.set(member.id, member);
          show();
        } else if (type === "broadcast") {
          heard.get(event)?.forEach((listener) => listener(message.data, message.from));
        } else if (type === "left" && message.reason !== "asked") {
          rooms.delete(name);
          members.clear();
          show();
        }
      },
    };
    rooms.set(name, room);
    if (socket) enter(room);
    else connect();
    return {
      ready,
      on(event, listener) {
        const listeners = heard.get(event) ?? new Set();
        heard.set(event, listeners.add(listener));
        return () => void listeners.delete(listener);
      },
      async send(event, data) {
        await ready;
        const reference = `${++names}`;
        return new Promise((resolve, reject) => {
          sending.set(reference, { channel: name, resolve, reject });
          const sent = say({ type: "broadcast", channel: name, event, data, reference });
          if (sent === false) {
            sending.delete(reference);
            reject(new AppError(0, { code: "unavailable", message: "the app cannot be reached" }));
          }
        });
      },
      presence: {
        get members() {
          return [...members.values()];
        },
        /** What the others see of this page; nothing with null. */
        set(state) {
          room.state = state;
          if (room.joined) say({ type: "presence", channel: name, state });
        },
        on(watcher) {
          watchers.add(watcher);
          return () => void watchers.delete(watcher);
        },
      },
      leave() {
        if (rooms.delete(name)) say({ type: "leave", channel: name });
        rest();
      },
    };
  }

  return { subscribe, channel, switched };
}

/** A list that is kept as it is in the app: `show` gets all rows at first, and again after each change. */
function kept(list, subscribe, { where: filter, select, order } = {}, show, failed = () => {}) {
  const by = (joined(order) ?? "id").split(",").map((name) => name.trim());
  const columns = select && [...new Set([...select, "id", ...by.map((name) => name.replace(/^-/, ""))])];
  let rows = new Map();
  let later = [];
  let loading = 0;
  let stopped = false;
  let drawn = false;

  const compare = (a, b) => {
    for (const name of [...by, "id"]) {
      const [column, turn] = name.startsWith("-") ? [name.slice(1), -1] : [name, 1];
      const [x, y] = [a[column] ?? null, b[column] ?? null];
      if (x === y) continue;
      if (x === null || y === null) return x === null ? -turn : turn;
      return x < y ? -turn : turn;
    }
    return 0;
  };
  const draw = () => {
    if (drawn) return;
    drawn = true;
    queueMicrotask(() => {
      drawn = false;
      if (!stopped && !loading) show([...rows.values()].sort(compare));
    });
  };
  const apply = ({ type, row }) => {
    const known = rows.get(row.id);
    if (type === "delete") rows.delete(row.id);
    // What was listed may be newer than what was told before.
    else if (!(known?.updated_at > row.updated_at)) rows.set(row.id, row);
  };
  const load = async () => {
    const mine = ++loading;
    later = [];
    const found = new Map();
    try {
      for await (const row of list({ where: filter, select: columns })) found.set(row.id, row);
    } catch (error) {
      if (mine === loading) {
        loading = 0;
        if (!stopped) failed(error);
      }
      return;
    }
    if (mine !== loading || stopped) return;
    [rows, loading] = [found, 0];
    later.forEach(apply);
    draw();
  };
  const stop = subscribe({ where: filter, select: columns }, (event) => {
    if (event.type === "error") return failed(event.error);
    if (event.type === "reset") return void load();
    if (loading) return void later.push(event);
    apply(event);
    draw();
  });
  return Object.assign(() => ((stopped = true), stop()), { ready: stop.ready });
}
