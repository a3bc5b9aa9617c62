// The sections of the console, in order. A further one is a file with `{ id, title, page }` and a line here and in
// `gateway/src/console.rs`: `icon` is in `dom.js`; `hidden` says whether there is nothing of it for who is signed in.

import audit from "./audit.js";
import budgets from "./budgets.js";
import connect from "./connect.js";
import environments from "./environments.js";
import keys from "./keys.js";
import members from "./members.js";
import overview from "./overview.js";
import tenants from "./tenants.js";
import usage from "./usage.js";

export const sections = [overview, tenants, environments, members, keys, budgets, usage, audit, connect];
