import assert from "node:assert/strict";
import { GetObjectCommand, PutObjectCommand, S3Client } from "@aws-sdk/client-s3";
import { checked, serving } from "./local.mjs";

export default checked(() =>
  serving(
    (request, response, body) => {
      assert.match(request.headers.authorization, /AWS4-HMAC-SHA256/);
      response.writeHead(200, { etag: '"e"' });
      response.end(request.method === "GET" ? "content" : undefined);
      void body;
    },
    async (endpoint) => {
      const client = new S3Client({ endpoint, region: "us-east-1", forcePathStyle: true, credentials: { accessKeyId: "a", secretAccessKey: "b" } });
      assert.equal((await client.send(new PutObjectCommand({ Bucket: "b", Key: "k", Body: "content" }))).ETag, '"e"');
      assert.equal(await (await client.send(new GetObjectCommand({ Bucket: "b", Key: "k" }))).Body.transformToString(), "content");
      client.destroy();
    },
  ),
);
