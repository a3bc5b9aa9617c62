import assert from "node:assert/strict";
import _ from "lodash";
import { checked } from "./local.mjs";

export default checked(() => assert.deepEqual(_.mapValues(_.groupBy([1, 2, 3], (n) => n % 2), _.sum), { 0: 2, 1: 4 }));
