import assert from "node:assert/strict";
import { generateKeyPairSync } from "node:crypto";
import jwt from "jsonwebtoken";
import { checked } from "./local.mjs";

export default checked(() => {
  const { privateKey, publicKey } = generateKeyPairSync("rsa", { modulusLength: 2048 });
  const token = jwt.sign({ a: 1 }, privateKey, { algorithm: "RS256", expiresIn: "1h" });
  assert.equal(jwt.verify(token, publicKey, { algorithms: ["RS256"] }).a, 1);
  assert.throws(() => jwt.verify(`${token}x`, publicKey), { name: "JsonWebTokenError" });
});
