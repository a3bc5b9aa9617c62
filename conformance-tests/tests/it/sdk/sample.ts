// What an app written in TypeScript says, and what the types must refuse.
import { createClient, AppError, where, type Client, type Row, type User } from "./sdk.js";

interface Todo {
  title: string;
  done: boolean;
  note: string | null;
}

const app: Client = createClient();
createClient({ url: "https://app.example.com", key: "pk_1" });

const todos = app.db<Todo>("todos");

export async function uses(): Promise<string[]> {
  const user: User = app.auth.user ?? (await app.auth.anonymous());
  const unsubscribe = app.auth.onChange((now) => console.log(now?.email ?? "nobody"));
  unsubscribe();
  await app.auth.signUp({ email: "a@example.com", password: "long enough" });
  const confirmed: User | null = await app.auth.signUp({ email: "b@example.com", password: "long enough", redirect: "/in" });
  await app.auth.otp("a@example.com", { redirect: "/in" });
  const entered: User = await app.auth.verify({ email: "a@example.com", code: "123456" });
  const token = app.auth.linkToken();
  if (token) await app.auth.verify({ token });
  await app.auth.forgotPassword("a@example.com");
  await app.auth.resetPassword({ email: "a@example.com", code: "123456", password: "long enough" });
  await app.auth.changePassword({ password: "longer than before", current: "long enough" });
  await app.auth.changeEmail({ email: "c@example.com" });
  await app.auth.verifyEmail({ email: "c@example.com", code: "123456" });
  for (const session of await app.auth.sessions()) if (!session.current) await app.auth.endSession(session.id);
  await app.auth.endOtherSessions();
  const mine = await app.auth.export();
  console.log(confirmed?.email_verified, entered.id, Object.keys(mine.rows));
  await app.auth.deleteAccount({ current: "long enough" });
  await app.auth.logout({ everywhere: true });

  const { rows, cursor } = await todos.list({
    select: ["id", "title"],
    where: where`done == ${false} && owner == ${user.id} && id in ${["a", "b"]}`,
    order: ["-created_at", "title"],
    limit: 20,
  });
  const titles: string[] = rows.map((row) => row.title);
  // @ts-expect-error this column was not selected
  rows.map((row) => row.done);
  if (cursor) await todos.list({ cursor });

  const row: Row<Todo> = await todos.create({ title: "milk" });
  await todos.update(row.id, { done: true }, { ifMatch: row });
  await todos.delete(row.id, { ifMatch: '"etag"' });
  for await (const { title, done, created_at } of todos.all({ order: "title" })) titles.push(`${title} ${done} ${created_at}`);
  const stop = todos.subscribe({ where: where`done == ${false}`, select: ["title"] }, (event) => {
    if (event.type === "insert" || event.type === "update") titles.push(event.row.title);
    // @ts-expect-error of a row that is gone only the id is told
    if (event.type === "delete") titles.push(event.row.title);
    if (event.type === "error") console.log(event.error.code);
  });
  await stop.ready;
  stop();
  todos.live({ order: "-created_at" }, (rows) => titles.push(...rows.map((row) => row.title)), console.error)();
  // @ts-expect-error there is no such column to sort by
  todos.live({ order: "nothing" }, () => {});
  const room = app.channel<{ name: string }>("room:1");
  await room.ready;
  room.presence.set({ name: "Ada" });
  room.presence.on((members) => titles.push(...members.map(({ state }) => state.name)));
  // @ts-expect-error this is not what members show
  room.presence.set({ nickname: "Ada" });
  room.on<{ x: number }>("point", ({ x }, { user }) => console.log(x, user));
  await room.send("point", { x: 1 });
  room.leave();
  const [created] = await app.batch([
    { do: "create", on: "todos", new: { title: "x" } },
    { do: "update", on: "todos", id: row.id, new: { done: true }, ifMatch: row },
    { do: "delete", on: "todos", id: row.id },
  ]);
  titles.push(String(created?.row?.["title"]));
  const loose = await app.db("anything").get("id");
  const value: unknown = loose["whatever"];
  titles.push(String(value));

  const photos = app.files("photos");
  const file = await photos.upload("a.png", new Blob([]), { type: "image/png", onProgress: ({ sent, size }) => void (sent / size) });
  titles.push(file.path, photos.url(file.path, { w: 320, fit: "cover", h: 200 }), await photos.sign("a.png", { expiresIn: 60 }));
  for await (const { path, size } of photos.all({ prefix: "a" })) titles.push(`${path} ${size}`);
  titles.push(await (await photos.download("a.png", { format: "webp" })).text());
  await photos.remove((await photos.move("a.png", "b.png")).path);

  try {
    await todos.get("x");
  } catch (error) {
    if (error instanceof AppError && error.code === "not_found") titles.push(error.hint ?? "", String(error.status));
  }
  return titles;
}

export async function refused(): Promise<void> {
  // @ts-expect-error no such column
  await todos.create({ titel: "milk" });
  // @ts-expect-error a column of another type
  await todos.update("id", { done: "yes" });
  // @ts-expect-error no such column to sort by
  await todos.list({ order: "-age" });
  // @ts-expect-error a misspelt option
  await todos.list({ orderBy: "title" });
  // @ts-expect-error a row without an id cannot be updated
  await todos.update({ done: true });
  // @ts-expect-error a password is needed
  await app.auth.login({ email: "a@example.com" });
  // @ts-expect-error a code without its address
  await app.auth.verify({ code: "123456" });
  // @ts-expect-error an account that may not be there yet
  const made: User = await app.auth.signUp({ email: "a@example.com", password: "long enough" });
  // @ts-expect-error the user is read, not set
  app.auth.user = null;
  // @ts-expect-error no such operation
  await app.batch([{ do: "upsert", on: "todos", new: {} }]);
  // @ts-expect-error an object is no value of a filter
  where`title == ${{ title: "x" }}`;
  // @ts-expect-error no such way to fit
  app.files("photos").url("a.png", { fit: "stretch" });
  // @ts-expect-error a file needs a path
  await app.files("photos").upload(new Blob([]));
  // @ts-expect-error nor is what may be missing
  where`title == ${undefined}`;
}
