import assert from "node:assert/strict";
import nodemailer from "nodemailer";
import { checked } from "./local.mjs";

export default checked(async () => {
  const transport = nodemailer.createTransport({ streamTransport: true, buffer: true });
  const { message } = await transport.sendMail({ from: "a@b.example", to: "c@d.example", subject: "Grüße", text: "x", attachments: [{ filename: "a.txt", content: "y" }] });
  assert.match(message.toString(), /Subject: =\?UTF-8/);
});
