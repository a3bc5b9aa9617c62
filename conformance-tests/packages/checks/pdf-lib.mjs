import assert from "node:assert/strict";
import { PDFDocument, StandardFonts } from "pdf-lib";
import { checked } from "./local.mjs";

export default checked(async () => {
  const made = await PDFDocument.create();
  made.addPage([200, 100]).drawText("hello", { font: await made.embedFont(StandardFonts.Helvetica), x: 10, y: 10 });
  assert.equal((await PDFDocument.load(await made.save())).getPageCount(), 1);
});
