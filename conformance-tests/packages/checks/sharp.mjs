import assert from "node:assert/strict";
import sharp from "sharp";
import { checked } from "./local.mjs";

export default checked(async () => {
  const picture = await sharp({ create: { width: 40, height: 20, channels: 3, background: "red" } }).png().toBuffer();
  const { width, height, format } = await sharp(await sharp(picture).resize(10).webp().toBuffer()).metadata();
  assert.deepEqual({ width, height, format }, { width: 10, height: 5, format: "webp" });
});
