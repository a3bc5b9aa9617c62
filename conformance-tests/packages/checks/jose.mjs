import assert from "node:assert/strict";
import { exportJWK, generateKeyPair, importJWK, jwtVerify, SignJWT } from "jose";
import { checked } from "./local.mjs";

export default checked(async () => {
  const { privateKey, publicKey } = await generateKeyPair("ES256", { extractable: true });
  const token = await new SignJWT({ a: 1 }).setProtectedHeader({ alg: "ES256" }).setExpirationTime("1h").sign(privateKey);
  const { payload } = await jwtVerify(token, await importJWK(await exportJWK(publicKey), "ES256"));
  assert.equal(payload.a, 1);
});
