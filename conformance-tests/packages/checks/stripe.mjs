import assert from "node:assert/strict";
import Stripe from "stripe";
import { checked } from "./local.mjs";

export default checked(async () => {
  const stripe = new Stripe("sk_test_x");
  const payload = '{"id":"evt_1","object":"event"}';
  const header = await stripe.webhooks.generateTestHeaderStringAsync({ payload, secret: "whsec_x" });
  assert.equal((await stripe.webhooks.constructEventAsync(payload, header, "whsec_x")).id, "evt_1");
  // Stripe's build for workers, which Bun's conditions choose, has no synchronous form.
  assert.equal(stripe.webhooks.constructEvent(payload, header, "whsec_x").id, "evt_1");
});
