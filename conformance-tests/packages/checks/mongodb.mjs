import assert from "node:assert/strict";
import { BSON, MongoClient, ObjectId } from "mongodb";
import { checked } from "./local.mjs";

export default checked(async () => {
  const id = new ObjectId();
  assert.equal(BSON.deserialize(BSON.serialize({ id, n: 1 })).id.toHexString(), id.toHexString());
  const client = new MongoClient("mongodb://127.0.0.1:1", { serverSelectionTimeoutMS: 200 });
  await assert.rejects(client.db("x").collection("y").findOne({}), /ECONNREFUSED/);
  await client.close();
});
