import assert from "node:assert/strict";
import dayjs from "dayjs";
import timezone from "dayjs/plugin/timezone.js";
import utc from "dayjs/plugin/utc.js";
import { checked } from "./local.mjs";

dayjs.extend(utc);
dayjs.extend(timezone);

export default checked(() => assert.equal(dayjs.utc("2026-07-01T12:00:00Z").tz("Asia/Shanghai").format("HH:mm"), "20:00"));
