import assert from "node:assert/strict";
import bcrypt from "bcryptjs";
import { checked } from "./local.mjs";

export default checked(async () => assert.equal(await bcrypt.compare("secret", await bcrypt.hash("secret", 4)), true));
