// Modules that do not load: each says what is wrong in a way that somebody can act on, and exits with 80.

import assert from "node:assert/strict";
import { both } from "./harness.mjs";

const cases = {
  "a syntax error": ["syntax", { "index.mjs": "export default {\n  fetch() { return new Response('x' }\n};" }, /./],
  "a missing package": ["missing_module", { "index.mjs": "import x from 'not-there'; export default x;" }, /not-there/],
  "a missing file": ["missing_module", { "index.mjs": "import x from './gone.mjs'; export default x;" }, /gone\.mjs/],
  "a missing export of another module": ["missing_export", { "index.mjs": "import { gone } from './other.mjs'; export default gone;", "other.mjs": "export const here = 1;" }, /gone/],
  "no handler": ["no_export", { "index.mjs": "export const helper = 1; export default { helper };" }, /it exports .*helper/],
  "nothing at all": ["no_export", { "index.mjs": "const x = 1;" }, /exports nothing/],
  "a class instead of an object": ["no_export", { "index.mjs": "export default class { fetch() {} }" }, /no handler/],
  "an Express app": ["no_export", { "index.mjs": "const app = () => {}; app.listen = () => {}; export default app;" }, /no handler/],
  "require in a module": ["module_kind", { "index.mjs": "import 'node:fs'; module.exports = { fetch() {} };" }, /module is not defined|import statement/],
  "import in CommonJS": ["module_kind", { "index.cjs": "import fs from 'node:fs'; exports.main = () => fs;" }, /import/],
  "a cycle": ["circular", { "index.mjs": "import './other.mjs'; export const a = 1; export default () => new Response(a);", "other.mjs": "import { a } from './index.mjs'; console.log(a);" }, /Cannot access/],
  "a throw at the top": ["throw", { "index.mjs": "const { KEY } = process.env;\nif (!KEY) throw new Error('KEY is not set');\nexport default () => {};" }, /KEY is not set/],
  "JSON that is none at the top": ["throw", { "index.mjs": "JSON.parse('{'); export default () => {};" }, /JSON/],
  "a rejection at the top": ["throw", { "index.mjs": "await Promise.reject(new Error('no database')); export default () => {};" }, /no database/],
  "a throw of something else": ["throw", { "index.mjs": "throw { code: 5 };" }, /thrown: /],
  "process.exit at the top": ["exit", { "index.mjs": "process.exit(7);" }, /process\.exit\(7\)/],
  "a wait without end at the top": ["timeout", { "index.mjs": "await new Promise(() => {}); export default () => {};" }, /within 500 ms \(limit boot_ms\)/],
};

for (const [name, [kind, files, message]] of Object.entries(cases)) {
  both(`${name} is ${kind}`, async ({ start }) => {
    const fn = start(files, { limits: { boot_ms: kind === "timeout" ? 500 : undefined } });
    assert.equal(await fn.exit, 80, fn.stderr);
    assert.equal(fn.ready, null);
    assert.equal(fn.failed.kind, kind, JSON.stringify(fn.failed));
    assert.match(fn.failed.message, message);
    assert.ok(fn.failed.hint.length > 20);
    if (kind === "throw" && name.startsWith("a throw at")) assert.match(fn.failed.stack, /index\.mjs:2/);
  });
}

both("hints tell an Express app, a class and a Lambda handler apart", async ({ start }) => {
  const hint = async (source) => {
    const fn = start(source);
    await fn.exit;
    return fn.failed.hint;
  };
  assert.match(await hint("const app = () => {}; app.listen = () => {}; export default app;"), /service/);
  assert.match(await hint("export default class { fetch() {} }"), /instance/);
  assert.match(await hint("export const handler = async () => {};"), /main/);
});

both("a socket that is there already, and an assignment that is none", async ({ start }) => {
  const taken = start("export default () => new Response();", { assignment: { sock: "/nowhere/fn.sock" } });
  assert.equal(await taken.exit, 80);
  assert.equal(taken.failed.kind, "listen");
  for (const stdin of ["", "no json", "{}", '{"entry":"/x","sock":"/y","mark":"short"}']) {
    const fn = start("export default () => {};", { stdin });
    assert.equal(await fn.exit, 84);
    assert.match(fn.raw.join(""), /no assignment/);
  }
});
