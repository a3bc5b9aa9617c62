import assert from "node:assert/strict";
import { addMonths, format, parseISO } from "date-fns";
import { checked } from "./local.mjs";

export default checked(() => assert.equal(format(addMonths(parseISO("2026-01-31"), 1), "yyyy-MM-dd"), "2026-02-28"));
